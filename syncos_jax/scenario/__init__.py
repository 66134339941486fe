"""The structured prompt: scenario files, templates, prompts, conditioning of each window."""

from syncos_jax.scenario.scenario import Event, Scenario

__all__ = ["Event", "Scenario"]
