"""Which prompts each window is conditioned on, and how much.

A window belongs to the event that its middle frame, ``start + window // 2``, lies in. Two things
change that: a cross-fade mixes the events of the windows around a change, and an override gives the
windows of a stretch a prompt of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario.scenario import Scenario


@dataclass(frozen=True, eq=False)
class WindowPrompts:
    """The prompts of every window. Sizes: ``N`` windows, ``P`` prompts, ``Q`` negative prompts.

    Attributes:
        events: the event of each window's middle frame, int32 ``[N]``.
        overrides: the override of each window, int32 ``[N]``; -1 for none.
        prompts: the conditioning texts, no two alike.
        weights: how much of each prompt's text features a window has, float32 ``[N, P]``; every
            row sums to 1.
        negatives: what guidance leads away from, no two alike.
        negative_weights: the same for these, float32 ``[N, Q]``.
    """

    events: np.ndarray
    overrides: np.ndarray
    prompts: tuple[str, ...]
    weights: np.ndarray
    negatives: tuple[str, ...]
    negative_weights: np.ndarray


def window_prompts(
    scenario: Scenario,
    layout: WindowLayout,
    fps: float,
    centers: np.ndarray | None = None,
) -> WindowPrompts:
    """What the windows of `layout` are conditioned on.

    Args:
        scenario: whose events and overrides.
        layout: the windows.
        fps: the model's frame rate.
        centers: the frame of the video that each window's middle (`WindowLayout.centers`) begins
            at, int ``[N]``; None where latent frames and frames are the same.

    Raises:
        InputError: an override that lies outside the video, or that no window has its middle in.
    """
    lengths = scenario.event_frames(fps)
    centers = layout.centers if centers is None else centers
    of_middle = np.searchsorted(np.cumsum(lengths), centers, side="right")
    # A video is rounded up to whole latent frames: its last ones may lie behind the last event.
    events = np.minimum(of_middle, len(lengths) - 1).astype(np.int32)
    share = _crossfaded(events, len(lengths), scenario.crossfade)
    overrides = _overridden(scenario, centers, sum(lengths), scenario.fps or fps)
    texts = scenario.prompts() + [scenario.text(other.prompt) for other in scenario.overrides]
    weights = np.zeros((layout.count, len(texts)), np.float32)
    weights[:, : len(lengths)] = share
    hit = overrides >= 0
    weights[hit] = 0.0
    weights[hit, len(lengths) + overrides[hit]] = 1.0
    prompts, merged = _merged(texts, weights)
    negatives, negative_weights = _merged(scenario.negatives(), share)
    return WindowPrompts(events, overrides, prompts, merged, negatives, negative_weights)


def _crossfaded(events: np.ndarray, count: int, width: int) -> np.ndarray:
    """The events' shares in each window, ``[N, E]``.

    At a change, `width` windows around the first window of the new event have 1, 2, ..., width
    parts of ``width + 1`` of the new one. Where changes are closer than that, a window is reached
    by several fades, and has what each leaves to the next.
    """
    windows = np.arange(len(events))
    reached = np.zeros((len(events), count + 1), np.float32)  # at least so far into the scenario
    reached[:, 0] = 1.0
    for event in range(1, count):
        first = np.searchsorted(events, event) - width // 2
        reached[:, event] = np.clip((windows - first + 1) / (width + 1), 0.0, 1.0)
    return reached[:, :-1] - reached[:, 1:]


def _overridden(scenario: Scenario, middle: np.ndarray, frames: int, fps: float) -> np.ndarray:
    chosen = np.full(len(middle), -1, np.int32)
    for index, override in enumerate(scenario.overrides):
        start, stop = override.stretch(fps)
        inside = (middle >= start) & (middle < stop)
        if stop > frames:
            raise InputError(
                f"ends at frame {stop}",
                place=f"overrides[{index}]",
                expected=f"at most {frames}, the length of the video ({frames / fps:g} seconds)",
            )
        if not inside.any():
            near = int(middle[np.abs(middle - (start + stop - 1) / 2).argmin()])
            raise InputError(
                f"has no effect: no window has its middle in frames {start} to {stop - 1}",
                place=f"overrides[{index}]",
                remedy=f"include frame {near}, the nearest middle",
            )
        chosen[inside] = index
    return chosen


def _merged(texts: Sequence[str], weights: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Equal texts as one, their weights added."""
    unique = {text: column for column, text in enumerate(dict.fromkeys(texts))}
    merged = np.zeros((len(weights), len(unique)), np.float32)
    for column, text in enumerate(texts):
        merged[:, unique[text]] += weights[:, column]
    return tuple(unique), merged
