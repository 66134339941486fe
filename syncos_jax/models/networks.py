"""What families share whose model is some networks, each a Flax module, and a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.family import Model
from syncos_jax.models.quantize import quantized
from syncos_jax.models.saved import TOKENIZER
from syncos_jax.sampling.placement import Placement
from syncos_jax.sampling.schedule import NoiseSchedule


class MissingPart(InputError, AttributeError):
    """A network, or the tokenizer, that a model was converted without."""


class NetworkModel(Model):
    """A model of networks that can be used alone.

    A model of which only one network was converted (``only``) has that one: reading another part
    raises `MissingPart`, an InputError that says so, and ``hasattr`` is False.

    Attributes:
        shardable: the networks whose weights may be divided among devices; the first is the
            denoiser.
        denoisers: the networks that `quantize` quantizes, those that are called at every step.
        config: sizes and sampling defaults; of `config_class`.
    """

    shardable: ClassVar[tuple[str, ...]]
    denoisers: ClassVar[tuple[str, ...]]

    def __init__(self, config: Any, schedule: NoiseSchedule, parts: Mapping[str, Any]) -> None:
        self.config = config
        self.name = config.name
        self.schedule = schedule
        self.geometry = config.geometry()
        self.steps, self.guidance = config.steps, config.guidance
        for part, value in parts.items():
            if value is not None:  # of the others, __getattr__ says that they are missing
                setattr(self, part, value)
        self._placed: dict[str, tuple[Any, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        networks = type(self).config_class.networks
        if name in (*networks, TOKENIZER):
            held = ", ".join(part for part in networks if part in vars(self))
            raise MissingPart(
                f"model {self.config.name!r} has no {name}: it was converted with only its {held}; "
                "convert the whole checkpoint"
            )
        raise AttributeError(name)

    @property
    def _networks(self) -> tuple[str, ...]:
        """Those that a whole model of this configuration has."""
        return tuple(self.config_class.networks)

    def _split(self, name: str) -> tuple[Any, Any]:
        """A network as its structure and its weights, on the devices that `place` was told."""
        if name not in self._placed:
            self._placed[name] = nnx.split(getattr(self, name))
        return self._placed[name]

    def quantize(self, how: str) -> None:
        for name in self.denoisers:
            network = vars(self).get(name)
            if network is not None:
                setattr(self, name, quantized(network, how))
                self._placed.pop(name, None)
        self.name = f"{self.name}@{how}"

    def place(self, placement: Placement) -> None:
        for name in self._networks:
            graphdef, weights = self._split(name)
            where = placement.place_weights if name in self.shardable else placement.place
            self._placed[name] = graphdef, where(weights)

    @property
    def params(self) -> Any:  # type: ignore[override]
        return self._split(self.shardable[0])[1]

    @property
    def weights(self) -> dict[str, Any]:
        return {name: self._split(name)[1] for name in self._networks}

    def denoise(self, params: Any, x: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
        return self.denoiser(params, x, t, cond)
