"""PyTorch checkpoints to this package's networks. Imported as ``syncos_jax.weights_convert``."""
