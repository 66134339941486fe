"""The networks, their configuration and their loading."""

from syncos_jax.models.config import ModelConfig
from syncos_jax.models.load import Model, load_model

__all__ = ["Model", "ModelConfig", "load_model"]
