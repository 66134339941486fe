"""What a model is, and the families of models there are."""

from syncos_jax.models.family import Geometry, Model, register

__all__ = ["Geometry", "Model", "register"]
