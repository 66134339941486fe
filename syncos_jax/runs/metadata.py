"""The metadata of a video: in full in a JSON file next to it, in short in the video itself.

The metadata file ``out.json`` of ``out.mp4`` contains (``version`` 1 of ``format``
"syncos_jax.video"):

================== =========================================================================
format, version    "syncos_jax.video", 1
generated          true: the video was made by a model
generator          name and version of this package
created            when, UTC, ISO 8601
files              video, contact_sheet, latents: names in the same folder, null for none
video              frames, width, height, fps, seconds, scale (pixels repeated), label
title              the global prompt
events             index, prompt, text (what the model was given), negative, start and stop in
                   frames (stop is the first frame after it), start_seconds, stop_seconds; an
                   extended clip has index -1 and no prompt
scenario           in full, as ``Scenario.from_dict`` takes it
inputs             pictures, clips, sound: role, path, sha256, start and stop (frames), note
scenario_sha256    of its canonical JSON
template           file, values of the variables; null for none
take               group (name without what varies), index, count, varies; null for none
sampler            name and every setting
seed               the seed
prng               JAX's random number generator that the seed is given to
model              id (as given), name, weights_sha256, dtype, window, fps, width, height; lora:
                   LoRAs merged when it was loaded, each with file, strength, sha256
layout             frames, window, stride, throwaway, windows, events_of_windows
cost               number of calls, samples and updates (`CallSchedule.describe`)
latents            sha256 of the float32 values, shape, dtype
versions           of syncos_jax, jax, jaxlib, flax, numpy, av, python
device             platform, kind, count
timings            seconds of each phase
marks              run_id, watermark, signed_by, register (line, previous); null for none
made_from          of a reproduced video: file, identical (whether the latents are); else null
================== =========================================================================

Scenario, sampler, seed and weights determine the latents: on the same machine with the same
versions they are bit-identical. Anyone can write, change or remove such a file and the metadata in
the video: it documents, but does not protect.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.files.versioned import FileFormat
from syncos_jax.media.credentials import SOURCE_TYPE
from syncos_jax.media.encode import read_comment
from syncos_jax.pipeline.versions import device_of, versions
from syncos_jax.sampling.noise import GENERATOR
from syncos_jax.scenario import Scenario
from syncos_jax.version import __version__

if TYPE_CHECKING:
    from syncos_jax.pipeline.request import Request

METADATA = FileFormat(
    "syncos_jax.video",
    "the metadata file of a video",
    "give the .json file next to a video made by syncos generate",
)


def metadata_path(video: str | os.PathLike[str]) -> Path:
    """``out.mp4`` -> ``out.json``; for a folder of frames, next to the folder."""
    return Path(video).with_suffix(".json")


def latents_sha256(latents: Any) -> str:
    """SHA-256 of latents as float32, little endian, in C order."""
    values = np.ascontiguousarray(np.asarray(latents), "<f4")
    return hashlib.sha256(values.tobytes()).hexdigest()


def scenario_sha256(scenario: Scenario) -> str:
    """SHA-256 of a scenario's mapping as JSON with sorted keys and no spaces."""
    return hashlib.sha256(_canonical(scenario.to_dict()).encode()).hexdigest()


def _canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def describe(request: Request, latents: Any, model_id: str = "") -> dict[str, Any]:
    """The part of the metadata that is known once the latents are sampled.

    Args:
        request: what was made.
        latents: ``[f, h, w, C]``.
        model_id: name or folder of the model, as the user gave it.
    """
    from syncos_jax.sampling.sampler_dict import sampler_to_dict

    model, layout, geometry = request.model, request.layout, request.model.geometry
    return {
        **METADATA.head,
        "generated": True,
        "generator": {"name": "syncos_jax", "version": __version__},
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "title": request.scenario.global_prompt,
        "events": request.spans,
        "scenario": request.scenario.to_dict(),
        "scenario_sha256": scenario_sha256(request.scenario),
        "inputs": [asdict(file) for file in request.files],
        "sampler": sampler_to_dict(request.sampler),
        "seed": request.seed,
        "prng": GENERATOR,
        "model": {
            "id": model_id or model.name,
            "name": model.name,
            "weights_sha256": model.weights_sha256,
            "lora": [lora.to_dict() for lora in model.loras],
            "dtype": model.dtype,
            "window": geometry.window,
            "fps": geometry.fps,
            "width": geometry.width,
            "height": geometry.height,
        },
        "layout": {
            "frames": layout.frames,
            "window": layout.window,
            "stride": layout.stride,
            "throwaway": layout.drop_leading,
            "windows": layout.count,
            "events_of_windows": request.prompts.events.tolist(),
        },
        "cost": asdict(request.summary),
        "latents": {
            "sha256": latents_sha256(latents),
            "shape": list(latents.shape),
            "dtype": "float32",
        },
        "versions": versions(),
        "device": device_of(request.placement),
    }


def signed_facts(metadata: Mapping[str, Any], *, prompts: bool) -> dict[str, Any]:
    """What Content Credentials state: hashes, model and settings; prompts if `prompts`."""
    facts = {
        "created": metadata["created"],
        "model": {key: metadata["model"][key] for key in ("name", "weights_sha256")},
        "scenario_sha256": metadata["scenario_sha256"],
        "latents_sha256": metadata["latents"]["sha256"],
        "seed": metadata["seed"],
        "sampler": metadata["sampler"],
    }
    return facts | ({"scenario": metadata["scenario"]} if prompts else {})


def video_comment(metadata: Mapping[str, Any]) -> str:
    """The comment in the video file itself: one line of JSON, without prompts or paths."""
    model = metadata["model"]
    label = f"syncos_jax {metadata['generator']['version']}"
    return json.dumps(
        {
            "generated": True,
            "generator": label,
            "digital_source_type": SOURCE_TYPE,
            "model": {"name": model["name"], "weights_sha256": model["weights_sha256"]},
            "scenario_sha256": metadata["scenario_sha256"],
            "latents_sha256": metadata["latents"]["sha256"],
            "seed": metadata["seed"],
            "sampler": metadata["sampler"],
            "created": metadata["created"],
        },
        separators=(",", ":"),
    )


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """How a video was made, from its own comment; None if it has none.

    Reads .mp4, .mov, .mkv, .webm, .gif, and folders of PNG frames.

    Raises:
      InputError: no video there.
    """
    text = read_comment(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("generated") is True else None


def write_metadata(path: str | os.PathLike[str], metadata: Mapping[str, Any]) -> Path:
    """Writes a metadata file atomically and durably; returns its path."""
    return METADATA.write(path, metadata)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a metadata file; raises InputError for another file, or missing keys."""
    try:
        data = METADATA.read(path)
    except FileNotFoundError as error:
        raise InputError("no such file", place=path) from error
    for key in ("scenario", "sampler", "model", "latents", "versions", "device", "video", "files"):
        if not isinstance(data.get(key), dict):
            raise InputError(place=(path, key), value=data.get(key), expected="a mapping")
    seed = data.get("seed")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(place=(path, "seed"), value=seed, expected="an integer from 0")
    for group, key in (("model", "id"), ("model", "weights_sha256"), ("latents", "sha256")):
        if not isinstance(data[group].get(key), str):
            value = data[group].get(key)
            raise InputError(place=(path, f"{group}.{key}"), value=value, expected="text")
    return data


def environment_differences(metadata: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Versions, devices and weights in which this run differs from the one in `metadata`:
    ``["jax 0.10.1, here 0.10.2"]``."""
    found = []
    for group in ("versions", "device"):
        for key, here in now[group].items():
            then = metadata[group].get(key)
            if then != here:
                found.append(f"{key} {then}, here {here}")
    for key in ("weights_sha256", "dtype"):
        if metadata["model"].get(key) != now["model"][key]:
            found.append("other weights" if key != "dtype" else f"dtype {now['model'][key]} here")
    return found
