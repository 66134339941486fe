"""The structured prompt: scenario files, templates, prompts, what each window is told."""

from syncos_jax.scenario.scenario import Event, Scenario

__all__ = ["Event", "Scenario"]
