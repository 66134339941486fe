"""The family of AnimateDiff: as `UNetClip`, with another UNet."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.animatediff.unet import MotionUNet, MotionUNetConfig
from syncos_jax.models.layers import AbstractRngs, DType
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.models.unet_clip.model import UNetClip


@dataclasses.dataclass(frozen=True)
class AnimateDiffConfig(ModelConfig):
    """As `ModelConfig`; the window is at most as long as the motion modules have positions."""

    family: ClassVar[str] = "animatediff"
    unet_config: ClassVar[Any] = MotionUNetConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window > self.unet.positions:
            raise InputError(
                f"model.window: clips of {self.window} frames; the motion modules know "
                f"{self.unet.positions}"
            )

    def build(self, network: str, dtype: DType) -> Any:
        """A network without weights (``nnx.eval_shape``)."""
        if network != "unet":
            return super().build(network, dtype)
        rngs: Any = AbstractRngs()
        sizes: Any = self.unet
        return nnx.eval_shape(lambda: MotionUNet(sizes, dtype=dtype, rngs=rngs))


class AnimateDiff(UNetClip):
    """A Stable Diffusion 1.5 with motion modules, whose parts can be used alone; see `UNetClip`.

    Attributes:
        unet: ``unet(x [b, F, H, W, C], t [b] or [b, F], text [b, S, D])`` -> like ``x``.
    """

    family = "animatediff"
    config_class = AnimateDiffConfig
    unet: MotionUNet  # type: ignore[assignment]
