"""Writes docs/reference.md, the reference of the Python API, from the docstrings.

    python docs/make_reference.py

A test holds the file to the docstrings.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).parent / "reference.md"

SECTIONS: list[tuple[str, str, list[str]]] = [
    ("From a scenario to a video", "syncos_jax", ["Pipeline", "Video"]),
    ("Scenarios", "syncos_jax", ["Scenario", "Event"]),
    ("", "syncos_jax.scenario.scenario", ["Override"]),
    ("Templates and plain prompts", "syncos_jax", ["Template"]),
    ("", "syncos_jax.scenario.template", ["Take", "parse_values"]),
    ("", "syncos_jax.scenario.variables", ["Variable"]),
    ("", "syncos_jax.scenario.prompts", ["from_prompts", "split_prompts"]),
    ("A request, and what it would cost", "syncos_jax.pipeline.request", ["Request"]),
    ("", "syncos_jax.pipeline.plan", ["Plan", "PlannedEvent", "PlannedWindow"]),
    ("", "syncos_jax.pipeline.plan", ["Transition"]),
    ("", "syncos_jax.pipeline.cost", ["Cost"]),
    ("Sampling with a denoiser of your own", "syncos_jax", ["sample", "WindowLayout"]),
    ("", "syncos_jax", ["NoiseSchedule"]),
    ("Within your own jit, vmap and grad", "syncos_jax.sampling", ["Sampling"]),
    ("Samplers' settings", "syncos_jax.sampling", ["SamplerConfig", "SynCoS"]),
    ("", "syncos_jax.sampling", ["CoDenoising", "RefinementOnly", "FIFO"]),
    ("", "syncos_jax.sampling.sampler_dict", ["sampler_from_dict", "sampler_to_dict"]),
    ("A run in parts", "syncos_jax.sampling", ["start"]),
    ("", "syncos_jax.sampling.run", ["Run", "run_to_end", "NonFiniteError"]),
    ("Several devices", "syncos_jax", ["make_mesh", "sample_batch"]),
    ("Models", "syncos_jax", ["load_model"]),
    ("", "syncos_jax.models", ["Model", "Geometry", "register"]),
    ("", "syncos_jax.models.unet_clip.model", ["UNetClip"]),
    ("", "syncos_jax.models.unet_clip.config", ["ModelConfig"]),
    ("Records of videos", "syncos_jax.runs.metadata", ["read_metadata", "read_provenance"]),
    ("", "syncos_jax.runs.metadata", ["latents_sha256", "scenario_sha256"]),
    ("Many videos in a pipeline of your own", "syncos_jax.runs", ["VideoGenerator"]),
    ("", "syncos_jax.runs.worker_config", ["WorkerConfig"]),
    ("Files and errors", "syncos_jax.media.video", ["load_video"]),
    ("", "syncos_jax.errors", ["InputError"]),
]


def reference() -> str:
    """The whole file."""
    parts = [
        "# Python API",
        "Made from the docstrings by `python docs/make_reference.py`. Axes: `F` frames of the long "
        "video, `N` windows, `w` frames of a window, `H W` height and width of a latent, `C` "
        "channels, `S` tokens, `D` text features.",
    ]
    for title, module, names in SECTIONS:
        if title:
            parts.append(f"## {title}")
        for name in names:
            parts += entry(module, name, getattr(importlib.import_module(module), name))
    return "\n\n".join(parts) + "\n"


def entry(module: str, name: str, thing: Any) -> list[str]:
    """Heading, signature and docstring of a class (with its methods) or a function."""
    parts = [f"### `{module}.{name}`"]
    if not inspect.isclass(thing):
        return [*parts, code(f"{name}{signature(thing)}"), described(thing)]
    fields = fields_of(thing)
    if fields:
        parts.append(code(f"{name}(\n" + "".join(f"    {field},\n" for field in fields) + ")"))
    elif "__init__" in vars(thing):
        parts.append(code(f"{name}{signature(thing.__init__)}"))
    parts.append(described(thing))
    for method, value in vars(thing).items():
        if method.startswith("_") and method != "__call__":
            continue
        function = getattr(value, "fget", None) or getattr(value, "func", None) or value
        function = getattr(function, "__func__", function)
        if not inspect.isfunction(function) or not function.__doc__:
            continue
        is_property = isinstance(value, property) or hasattr(value, "attrname")
        head = method if is_property else f"{method}{signature(function)}"
        parts += [f"#### `{name}.{method}`", code(head), described(function)]
    return parts


def fields_of(thing: type) -> list[str]:
    """ "name: type = default" of the fields of a dataclass or a pydantic model."""
    if dataclasses.is_dataclass(thing):
        missing = dataclasses.MISSING
        rows = [
            (f.name, f.type, f.default, f.default is missing) for f in dataclasses.fields(thing)
        ]
    elif hasattr(thing, "model_fields"):
        rows = [
            (name, plain(thing.__annotations__[name]), f.default, f.is_required())
            for name, f in thing.model_fields.items()
        ]
    else:
        return []
    return [f"{n}: {t}" + ("" if bare else f" = {d!r}") for n, t, d, bare in rows]


def plain(annotation: str) -> str:
    """A field's annotation without what pydantic checks beyond the type."""
    for alias, kind in (("_Prompt", "str"), ("_Second", "float"), ("_Frame", "int")):
        annotation = annotation.replace(alias, kind)
    annotation = annotation.replace("_Pixels", "int")
    return re.sub(r"Annotated\[(.+?), Field\(.*?\)\]", r"\1", annotation)


def signature(function: Any) -> str:
    """The signature, without ``self`` and ``cls``, on lines of its own where it is long."""
    found = inspect.signature(function)
    parts, star = [], False
    for name, parameter in found.parameters.items():
        if name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        kind = "" if parameter.annotation is parameter.empty else f": {named(parameter.annotation)}"
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        star_star = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        parts.append(star_star + name + kind + default)
    tail = (
        ")" if found.return_annotation is found.empty else f") -> {named(found.return_annotation)}"
    )
    line = f"({', '.join(parts)}{tail}"
    if len(line) <= 80:
        return line
    return "(\n" + "".join(f"    {part},\n" for part in parts) + tail


def named(annotation: Any) -> str:
    """An annotation as it is written."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def described(thing: Any) -> str:
    """A docstring as Markdown: sections in bold, their entries as lists."""
    text = inspect.cleandoc(thing.__doc__ or "").replace("``", "`")
    out: list[str] = []
    lines = text.splitlines()
    index = 0
    while index < len(lines):
        section = re.fullmatch(r"(Args|Attributes|Returns|Raises|Yields):", lines[index])
        if not section:
            out.append(lines[index])
            index += 1
            continue
        block = []
        index += 1
        while index < len(lines) and (not lines[index].strip() or lines[index][0] == " "):
            block.append(lines[index])
            index += 1
        out += ["", f"**{section[1]}**", "", *listed(textwrap.dedent("\n".join(block))), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip()


def listed(block: str) -> list[str]:
    """The entries of a section, ``name: words``, as a Markdown list; other text as it is."""
    out: list[str] = []
    for line in block.strip().splitlines():
        found = re.match(r"([\w, ]+): (.*)", line)
        if found and not line.startswith(" "):
            out.append(f"- `{found[1]}`: {found[2]}")
        else:
            out.append(f"  {line.strip()}" if out and out[0].startswith("- ") else line)
    return out


def code(text: str) -> str:
    """A fenced block."""
    return f"```python\n{text}\n```"


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
