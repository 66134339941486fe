"""The command line, ``syncos``."""

from syncos_jax.cli.app import app, main

__all__ = ["app", "main"]
