"""Small takes of the drawn world, with sidecars, for the tests of the review page."""

import json
from pathlib import Path

import numpy as np

from demo_model.world import Scene, render
from syncos_jax.media.video import Video

EVENTS = [
    ("the ball rolls to the left", Scene("ball", "red", "meadow", "left", 44, 44, 9, 20)),
    ("the ball rises", Scene("ball", "red", "meadow", "up", 24, 44, 9, 20)),
    ("the ball grows", Scene("ball", "red", "meadow", "grow", 24, 24, 9, 1.8)),
]
FRAMES = 8


def clip(scene, frames=FRAMES):
    return render([scene], frames)[0]


def frames_of(scenes=None):
    """uint8 [24, 64, 64, 3]: the events one after the other."""
    scenes = scenes or [scene for _, scene in EVENTS]
    return np.concatenate([clip(scene) for scene in scenes])


def sidecar(name, prompts=None, seed=0, frames=FRAMES, **more):
    """What `syncos generate` writes beside a video, of the keys that the page reads."""
    prompts = prompts or [prompt for prompt, _ in EVENTS]
    events = [
        {"index": i, "prompt": prompt, "start": i * frames, "stop": (i + 1) * frames}
        for i, prompt in enumerate(prompts)
    ]
    return {
        "format": "syncos_jax.video",
        "version": 1,
        "files": {"video": name},
        "video": {"frames": len(events) * frames, "fps": 8.0, "scale": 2},
        "events": events,
        "scenario": {"global": "a red ball on a green meadow", "seed": seed},
        "sampler": {"name": "syncos", "steps": 50},
        "seed": seed,
        "model": {"id": "demo", "name": "demo", "width": 64, "height": 64},
        "timings": {"sample": 12.5},
        **more,
    }


def write_take(folder, name="take1.mp4", frames=None, notes=None, **more):
    """An mp4 of 128 × 128 and its sidecar; returns the path of the video."""
    path = Path(folder) / name
    Video(frames_of() if frames is None else frames, 8).save(path, scale=2)
    data = sidecar(name, **more) if notes is None else notes
    if data:
        path.with_suffix(".json").write_text(json.dumps(data))
    return path
