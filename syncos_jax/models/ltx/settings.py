"""What describes a model of LTX-2 besides its weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from flax import nnx

from syncos_jax.models.family import Geometry
from syncos_jax.models.from_mapping import from_mapping
from syncos_jax.models.gemma3 import Gemma3Config, Gemma3Encoder
from syncos_jax.models.layers import AbstractRngs, DType
from syncos_jax.models.ltx.config import (
    LTXConnectorConfig,
    LTXTransformerConfig,
    LTXVAEConfig,
    RotaryConfig,
)
from syncos_jax.models.ltx.connectors import LTXConnectors
from syncos_jax.models.ltx.transformer import LTXTransformer
from syncos_jax.models.ltx.vae import LTXVAE
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.solvers import Solver

DISTILLED_SIGMAS = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875)
"""Of the distilled checkpoints, which take eight steps."""


@dataclasses.dataclass(frozen=True)
class ShiftByTokens:
    """A flow's time shift ``exp(mu)``, where ``mu`` is linear in the tokens of a clip.

    Attributes:
        base_tokens, base: a number of tokens, and its ``mu``.
        most_tokens, most: another one.
        tokens: whose ``mu`` every clip has; None for each clip's own number of tokens, as in
            diffusers. (The original code takes 4096 whatever the size.)
    """

    base_tokens: int = 1024
    base: float = 0.95
    most_tokens: int = 4096
    most: float = 2.05
    tokens: int | None = 4096

    def shift(self, tokens: int) -> float:
        """The shift for clips of so many tokens."""
        tokens = tokens if self.tokens is None else self.tokens
        slope = (self.most - self.base) / (self.most_tokens - self.base_tokens)
        return math.exp(self.base + slope * (tokens - self.base_tokens))


@dataclasses.dataclass(frozen=True)
class LTXConfig:
    """A text-to-video model of LTX-2, video stream only: sizes of its networks, and defaults.

    Attributes:
        name: for people.
        transformer, connectors, vae, text: sizes of the networks.
        shift: of the noise levels; read where there are no `sigmas`.
        terminal: the levels are stretched so that the last one is this; None for no stretching.
        sigmas: noise levels of a distilled model, falling, without the 0 at the end; empty for
            another.
        perturbed_block: block of the transformer that perturbed guidance perturbs.
        perturbed_guidance: default scale of it (spatio-temporal guidance).
        guidance_rescale: default share of the rescaling of guided latents.
        picture_crf: H.264 quality at which given pictures are compressed first; 0: not at all.
        text_tokens: to which prompts are padded.
        window: latent frames of a clip, the length of a window (16 are 121 frames).
        stride: default distance in latent frames between the starts of two windows.
        fps: frames per second of a clip.
        height, width: of a frame, pixels.
        steps, guidance: default number of denoising steps and guidance scale.
        source: where the weights are from.
        notes: anything worth knowing, shown by ``syncos info``.
    """

    family: ClassVar[str] = "ltx"
    networks: ClassVar[tuple[str, ...]] = ("transformer", "connectors", "vae", "text_encoder")

    name: str
    transformer: LTXTransformerConfig = LTXTransformerConfig()
    connectors: LTXConnectorConfig = LTXConnectorConfig()
    vae: LTXVAEConfig = LTXVAEConfig()
    text: Gemma3Config = Gemma3Config()
    shift: ShiftByTokens = ShiftByTokens()
    terminal: float | None = 0.1
    sigmas: tuple[float, ...] = ()
    perturbed_block: int = 28
    perturbed_guidance: float = 1.0
    guidance_rescale: float = 0.7
    picture_crf: int = 33
    text_tokens: int = 1024
    window: int = 16
    stride: int = 5
    fps: float = 24.0
    height: int = 512
    width: int = 768
    steps: int = 30
    guidance: float = 3.0
    source: str = ""
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def build(self, network: str, dtype: DType) -> Any:
        """A network without weights (``nnx.eval_shape``)."""
        rngs: Any = AbstractRngs()
        makers: dict[str, Any] = {
            "transformer": lambda: LTXTransformer(self.transformer, dtype=dtype, rngs=rngs),
            "connectors": lambda: LTXConnectors(self.connectors, dtype=dtype, rngs=rngs),
            "vae": lambda: LTXVAE(self.vae, dtype=dtype, rngs=rngs),
            "text_encoder": lambda: Gemma3Encoder(self.text, dtype=dtype, rngs=rngs),
        }
        return nnx.eval_shape(makers[network])

    def geometry(self) -> Geometry:
        """Sizes of a clip."""
        return Geometry(
            window=self.window,
            stride=self.stride,
            channels=self.vae.latent_channels,
            cell=self.vae.factor,
            height=self.height,
            width=self.width,
            fps=self.fps,
            temporal=self.vae.time_factor,
            causal=True,
        )

    def noise_schedule(self, tokens: int | None = None) -> NoiseSchedule:
        """The diffusion process, a flow, for clips of so many tokens (None: of the default
        size)."""
        if tokens is None:
            cells = self.height // self.vae.factor * (self.width // self.vae.factor)
            tokens = self.window * cells
        settings: dict[str, Any]
        if self.sigmas:
            schedule, settings = NoiseSchedule.flow(), {"rule": "list", "sigmas": self.sigmas}
        else:
            schedule = NoiseSchedule.flow(shift=self.shift.shift(tokens))
            settings = {"rule": "even", "terminal": self.terminal}
        return dataclasses.replace(schedule, solver=Solver("euler"), flow_settings=settings)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LTXConfig:
        """The inverse of ``to_dict``.

        Raises:
            InputError: missing or unknown entries, by name.
        """
        values = dict(values)
        kinds = {
            "transformer": LTXTransformerConfig,
            "connectors": LTXConnectorConfig,
            "vae": LTXVAEConfig,
            "text": Gemma3Config,
            "shift": ShiftByTokens,
        }
        for key, kind in kinds.items():
            if isinstance(values.get(key), Mapping):
                own = dict(values[key])
                if isinstance(own.get("rotary"), Mapping):
                    own["rotary"] = from_mapping(RotaryConfig, own["rotary"], f"{key}.rotary")
                values[key] = from_mapping(kind, own, key)
        return from_mapping(cls, values, "model")
