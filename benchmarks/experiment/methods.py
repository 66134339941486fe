"""The methods that are compared, each a name for settings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files.documents import read_mapping
from syncos_jax.files.text import did_you_mean, short
from syncos_jax.sampling import (
    FIFO,
    Chained,
    CoDenoising,
    FlowLong,
    FreeNoise,
    RefinementOnly,
    SynCoS,
)
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.sampler_dict import sampler_fields, sampler_from_dict, sampler_to_dict


@dataclass(frozen=True)
class Method:
    """A way of making a long video.

    Attributes:
        name: in tables and files.
        settings: the sampler; steps and guidance of the experiment replace its own.
        structured: whether windows are conditioned on "global, local" or on the local prompt alone.
        title: in plots.
    """

    name: str
    settings: SamplerConfig
    structured: bool = True
    title: str = ""

    def with_common(self, **values: Any) -> Method:
        """The same with settings that all methods share (steps, guidance, batch, and for those
        with a refinement iterations, etc.); None, and what it does not have, is left alone.
        ``refine_snr`` takes the place of a ``t_min`` above 0."""
        if not getattr(self.settings, "t_min", None):
            values.pop("refine_snr", None)
        known = sampler_fields(self.settings.name)
        changes = {k: v for k, v in values.items() if v is not None and k in known}
        return dataclasses.replace(self, settings=self.settings.replace(**changes))

    def to_dict(self) -> dict[str, Any]:
        """All that decides what this method makes."""
        return {"sampler": sampler_to_dict(self.settings), "structured": self.structured}


_PAPER = SynCoS.paper()

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("co_denoising", CoDenoising(), title="co-denoising"),
        Method("fifo", FIFO(), title="FIFO"),
        Method("flowlong", FlowLong(), title="FlowLong"),
        Method("freenoise", FreeNoise(), title="FreeNoise"),
        Method("chained", Chained(), title="clip by clip"),
        Method("syncos", _PAPER, title="SynCoS"),
        Method("no_structure", _PAPER, structured=False, title="no structured prompt"),
        Method(
            "no_grounded_timestep",
            _PAPER.replace(grounded_timestep=False),
            title="no grounded timestep",
        ),
        Method(
            "no_fixed_noise",
            _PAPER.replace(fixed_noise=False),
            title="no fixed noise",
        ),
        Method("no_t_min", _PAPER.replace(t_min=0), title="no t_min"),
        Method("refinement_only", RefinementOnly(), title="refinement alone"),
    )
}
"""The methods of the paper's Tables 1 to 3, by name, and others'.

Table 1 compares ``co_denoising`` (Gen-L-Video), ``fifo`` and ``syncos``; Table 2 ``syncos`` with
the four ``no_...``; Table 3 the stages: 1 and 3 alone are ``co_denoising``, 2 alone is
``refinement_only``. (Stage 1 without stage 3 does not lead on to another timestep, so there is no
such method.) ``flowlong``, ``freenoise`` and ``chained`` stand in none of the paper's tables.
"""


DIAL = "dial_"


def dial_methods(strengths: Sequence[float]) -> dict[str, Method]:
    """`SynCoS.dial` at some strengths, by name: ``dial_0.5``."""
    made = [
        Method(f"{DIAL}{strength:g}", SynCoS(strength=strength), title=f"dial at {strength:g}")
        for strength in strengths
    ]
    return {method.name: method for method in made}


def read_methods(path: str | os.PathLike[str]) -> dict[str, Method]:
    """Methods of one's own, from a YAML or JSON file.

    A mapping of names to settings as in a scenario's ``sampler``, plus ``structured``::

        few: {name: syncos, t_min: 700, iterations: 2, windows_per_step: 4}
        bare: {name: co_denoising, structured: false}

    Raises InputError with the file and the entry in question.
    """
    methods = {}
    for name, values in read_mapping(path).items():
        if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
            raise InputError(f"{path}: {short(name)}: a method's name has letters, digits, - and _")
        if not isinstance(values, Mapping):
            raise InputError(
                f"{path}: {name}: is {short(values)}; expected {{name: syncos, t_min: 700}}"
            )
        rest = dict(values)
        structured = rest.pop("structured", True)
        if not isinstance(structured, bool):
            raise InputError(
                f"{path}: {name}: structured is {short(structured)}; expected true or false"
            )
        try:
            settings = sampler_from_dict(rest)
        except (InputError, TypeError) as error:
            raise InputError(f"{path}: {name}: {error}") from error
        methods[name] = Method(name, settings, structured, title=name)
    if not methods:
        raise InputError(f"{path}: names no method")
    return methods


def choose(names: Sequence[str] | None, known: Mapping[str, Any], what: str) -> list[Any]:
    """The named ones in the order given, or all; InputError for a name that is not known, or that
    stands twice."""
    if names is None:
        return list(known.values())
    for name in names:
        if name not in known:
            raise InputError(f"no {what} {name!r}{did_you_mean(name, known)}")
        if names.count(name) > 1:
            raise InputError(f"{what} {name!r} stands twice; name it once")
    if not names:
        raise InputError(f"no {what} is named; known are {', '.join(known)}")
    return [known[name] for name in names]
