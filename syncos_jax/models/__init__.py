"""The networks, and what a model is."""

from syncos_jax.models.config import ModelConfig
from syncos_jax.models.model import Model

__all__ = ["Model", "ModelConfig"]
