"""Templates by name: those that come with the package, and those that people saved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files import replacing
from syncos_jax.files.documents import read_text, to_text
from syncos_jax.scenario.scenario import braces_doubled
from syncos_jax.scenario.template import Template
from syncos_jax.scenario.variables import MAX_PROMPT, Variable
from syncos_jax.studio.api_errors import ApiError, Finding, finding

BUILT_IN = Path(__file__).parent / "templates"
MAX_SAVED = 500
MAX_NAME = 80
_NAME = re.compile(r"\w(?:[\w ().,-]*[\w)])?")
_FROM_ZERO = ("seed", "crossfade", "throwaway")
_WHOLE = ("frames", "stride", "window", "steps", "iterations", "batch", *_FROM_ZERO)
_NUMBERS = ("seconds", "fps", "guidance", "strength", "eta")


class Templates:
    """The templates of a folder and of the package.

    A name is looked up among the files that are there, never joined to a path; symbolic links are
    not followed.

    Args:
        folder: of the saved ones; made when the first is saved.
        seconds: of an event, at most.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds

    def _files(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in (BUILT_IN, self._folder):
            if not folder.is_dir():
                continue
            for path in sorted(folder.iterdir()):
                if path.suffix == ".yaml" and path.is_file() and not path.is_symlink():
                    found[path.stem] = path
        return found

    def path(self, name: str) -> Path | None:
        """The file of a template; None where there is none of that name."""
        return self._files().get(name)

    def get(self, name: str) -> Template:
        """A template; ApiError where there is none of that name."""
        path = self.path(name)
        if path is None:
            raise ApiError(
                404,
                Finding("there is no such template", "Choose one of the list", "template"),
            )
        return Template.from_file(path)

    def items(self) -> list[dict[str, Any]]:
        """All that can be read, by name, as ``GET /v1/templates`` has them."""
        items = []
        for name, path in sorted(self._files().items(), key=lambda item: item[0].casefold()):
            try:
                template = Template.from_file(path)
                description = _description(read_text(path))
            except InputError:  # one that somebody broke by hand must not stop the others
                continue
            variables = [self._variable(template, key) for key in template.variables]
            items.append({"name": name, "description": description, "variables": variables})
        return items

    def mention(self, text: str) -> bool:
        """Whether a saved template contains a text."""
        if not self._folder.is_dir():
            return False
        return any(
            text in path.read_text(encoding="utf-8", errors="replace")
            for path in self._folder.glob("*.yaml")
            if path.is_file() and not path.is_symlink()
        )

    def _variable(self, template: Template, name: str) -> dict[str, Any]:
        variable = template.variables[name]
        kind, low, high = _kind(variable, _places(template.data, name), self._seconds)
        return {
            "name": name,
            "kind": kind,
            "description": variable.description,
            "default": variable.default,
            "choices": list(variable.allowed or (True, False)) if kind == "choice" else None,
            "minimum": low,
            "maximum": high,
            "max_length": MAX_PROMPT if kind == "text" else None,
        }

    def save(
        self,
        name: str,
        scenario: dict[str, Any],
        of: str | None = None,
        values: Mapping[str, Any] | None = None,
        new: Mapping[str, tuple[str, str]] | None = None,
    ) -> str:
        """Writes a scenario as a template; returns its name. One that was made of a template, `of`
        with `values`, keeps its variables, with these as defaults.

        Raises ApiError where the name is none, or taken.
        """
        name = self._new_name(name)
        files = self._files()
        source = Template.from_file(files[of]) if of in files else None
        data = with_variables(source, scenario, values or {}) if source else None
        if new:
            data = _replace_words(data, scenario, new)
        return self._write(name, data or braces_doubled(scenario))

    def save_data(self, name: str, data: Mapping[str, Any]) -> str:
        """Writes what a template file holds under a new name; returns the name.

        Raises ApiError where the name is none, or taken, or `data` is not a template.
        """
        try:
            Template.from_dict(data)
        except InputError as error:
            raise ApiError(422, finding(error)) from error
        return self._write(self._new_name(name), data)

    def _new_name(self, name: str) -> str:
        name = name.strip()
        if len(name) > MAX_NAME or not _NAME.fullmatch(name):
            raise ApiError(
                422,
                Finding(
                    "the name cannot be used",
                    f"Use letters, digits, spaces, - and _, at most {MAX_NAME}",
                    "name",
                ),
            )
        files = self._files()
        if name.casefold() in {known.casefold() for known in files}:
            raise ApiError(
                409, Finding("there is a template of this name", "Give another name", "name")
            )
        if len(files) >= MAX_SAVED:
            raise ApiError(409, Finding("there are too many templates", "Remove some of the files"))
        return name

    def _write(self, name: str, data: Mapping[str, Any]) -> str:
        self._folder.mkdir(exist_ok=True)
        text = to_text(_plain(data), ".yaml")
        with replacing(self._folder / f"{name}.yaml") as temporary:
            temporary.write_text(text, encoding="utf-8")
        return name


def _replace_words(
    data: dict[str, Any] | None, scenario: dict[str, Any], new: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    """A template in which new variables replace words of the prompts.

    Args:
        data: the template so far; None for that of `scenario`.
        scenario: the scenario of the video.
        new: by name, the words that a variable replaces (its default) and its description.

    Raises:
        ApiError: words that occur in no prompt, a name that is taken or invalid.
    """
    template = dict(data) if data is not None else braces_doubled(scenario)
    variables = dict(template.pop("variables", {}))
    for name, (words, description) in new.items():
        if not words or not name.isidentifier() or name in variables:
            raise ApiError(
                422,
                Finding(
                    f"{name[:60]!r} cannot be the name of a variable",
                    "Use letters and digits, a new name for each",
                    "variables",
                ),
            )
        found = braces_doubled({"text": words})["text"]
        changed = _with_words(template, found, "{" + name + "}")
        if changed == template:
            raise ApiError(
                422,
                Finding(
                    f"no prompt contains {words[:60]!r}", "Use words from the prompts", "variables"
                ),
            )
        template = changed
        variables[name] = {
            "default": words,
            **({"description": description} if description else {}),
        }
    template = {"variables": variables, **template}
    try:
        Template.from_dict(template).fill()
    except InputError as error:
        raise ApiError(422, finding(error, "variables")) from error
    return template


def _with_words(data: dict[str, Any], words: str, replacement: str) -> dict[str, Any]:
    """`data` with words of its prompts replaced."""

    def replaced(text: Any) -> Any:
        return text.replace(words, replacement) if isinstance(text, str) else text

    keys = ("global", "negative", "prompt")
    changed = {key: replaced(value) if key in keys else value for key, value in data.items()}
    changed["events"] = [
        {key: replaced(value) if key in keys else value for key, value in event.items()}
        for event in data["events"]
    ]
    return changed


def with_variables(
    source: Template, scenario: dict[str, Any], values: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What a template file of `scenario` holds that has the variables of `source`, with `values` as
    their defaults; None where `source` does not make that scenario."""
    variables = {}
    for name, variable in source.variables.items():
        entry = variable.model_dump(exclude_defaults=True)
        if variable.allowed is not None:
            entry["allowed"] = list(variable.allowed)
        variables[name] = {**entry, "default": values.get(name, variable.default)}
    rest = dict(source.data)
    laid_over = {key: braces_doubled(scenario.get(key)) for key in ("sampler", "size", "negative")}
    seed = {"seed": scenario.get("seed", 0)}
    for own in (rest | seed, rest | seed | {k: v for k, v in laid_over.items() if v is not None}):
        try:
            filled = Template.from_dict({"variables": variables, **own}).fill()
        except InputError:
            continue
        if filled.to_dict() == scenario:
            return {"variables": variables, **own}
    return None


def _plain(value: Any) -> Any:
    """Numbers that know how they were written (`WrittenInt`) as numbers."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return int(value) if isinstance(value, int) else float(value)


def _description(text: str) -> str:
    """The comment that a file begins with."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").strip())
    return " ".join(lines)[:500]


def _places(data: Any, name: str, key: str = "") -> set[str]:
    """The keys under which a variable is all that stands there."""
    if isinstance(data, dict):
        return set().union(*(_places(value, name, str(k)) for k, value in data.items()))
    if isinstance(data, list):
        return set().union(*(_places(value, name, key) for value in data))
    return {key} if data == f"{{{name}}}" else set()


def _kind(
    variable: Variable, places: set[str], seconds: float
) -> tuple[str, float | None, float | None]:
    """Kind of a variable, its least and its greatest value."""
    default = variable.default
    if variable.allowed is not None or isinstance(default, bool):
        return "choice", None, None
    if "seconds" in places:
        return "number", 0.1, seconds
    if places & set(_WHOLE):
        return "integer", 0.0 if places & set(_FROM_ZERO) else 1.0, None
    if places & set(_NUMBERS) or isinstance(default, int | float):
        return "number", None, None
    return "text", None, None
