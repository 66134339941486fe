"""Marks of many generated videos: do all hold, and are three kinds of tampering told apart?

    python benchmarks/marks.py --videos 100 --out benchmarks/results/marks.json

Each video is co-denoised by the shipped model in few steps, watermarked, signed and registered, and
then verified as it is, with one byte changed, with its manifest removed (a remux), and signed again
by somebody else. The official reader (c2pa-python) is asked about each file as well.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import av
import c2pa
import numpy as np

from syncos_jax import CoDenoising, Event, Pipeline, Scenario
from syncos_jax.media import credentials, marking
from syncos_jax.media.certificates import identity_from_files, make_test_identity
from syncos_jax.media.marking import Marking
from syncos_jax.media.video import Video

MOTIONS = ("moves to the left", "moves up", "grows", "shrinks")


def official(path: Path) -> str:
    """State by the official reader: Valid, Trusted, Invalid or none."""
    try:
        reader = c2pa.Reader.try_create(str(path))
    except c2pa.C2paError:
        return "Invalid"
    if reader is None:
        return "none"
    with reader:
        return str(reader.get_validation_state())


def change_byte(path: Path, rng: np.random.Generator) -> None:
    """Flip one bit of the encoded pictures."""
    data = bytearray(path.read_bytes())
    begin = data.index(b"mdat") + 8
    data[int(rng.integers(begin, len(data)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def remux(path: Path) -> None:
    """Copy the streams into a new file, which leaves the manifest behind."""
    copy = path.with_name(f"remux-{path.name}")
    with av.open(str(path)) as source, av.open(str(copy), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    copy.replace(path)


def told(path: Path, register: Path, trusted: str) -> tuple[str, str]:
    """What `verify` says in one word, and the state by the official reader."""
    found = marking.verify(path, trusted=trusted, register=register, search=False)
    said = "; ".join(found.problems)
    words = {
        "changed after signing": "changed",
        "credentials were removed": "removed",
        "not on the trust list": "foreign",
    }
    kinds = [word for text, word in words.items() if text in said]
    intact = found.credentials.state == "trusted" and found.watermark == "found" and not said
    return ("intact" if intact else "+".join(kinds) or said or "other"), official(path)


def measure(count: int, folder: Path) -> dict[str, dict[str, int]]:
    """Counts of (answer, official state) by what was done to the video."""
    us, them = (make_test_identity(folder / name, name) for name in ("ours", "theirs"))
    ours, theirs = (identity_from_files(i / "certificate.pem", i / "key.pem") for i in (us, them))
    trusted = (us / "authority.pem").read_text()
    pipeline, rng = Pipeline.from_pretrained("demo"), np.random.default_rng(0)
    counts = {name: Counter[str]() for name in ("intact", "byte", "remux", "foreign")}
    register = folder / "videos"
    register.mkdir()
    for seed in range(count):
        events = [
            Event(prompt=f"the ball {MOTIONS[(seed + n) % len(MOTIONS)]}", frames=8) for n in (0, 1)
        ]
        scenario = Scenario(global_prompt="a red ball on a green meadow", events=events)
        frames = pipeline(scenario, sampler=CoDenoising(steps=4), seed=seed).frames
        video = Video(frames, 8.0)
        path, run = register / f"ball-{seed}.mp4", f"{0x9E3779B97F4A7C15 * (seed + 1) % 2**64:016x}"
        video.save(path, scale=4, watermark=int(run, 16))
        Marking(watermark=True, identity=ours).apply(path, {"run_id": run, "seed": seed})
        for name in counts:
            copy = register / f"{name}-{seed}.mp4"
            shutil.copy2(path, copy)
            if name == "byte":
                change_byte(copy, rng)
            elif name == "remux":
                remux(copy)
            elif name == "foreign":
                credentials.sign(copy, theirs, {"run_id": run})
            answer, state = told(copy, register, trusted)
            counts[name][f"{answer}, official reader: {state}"] += 1
            copy.unlink()
        print(seed, {name: max(found, key=found.__getitem__) for name, found in counts.items()})
    return {name: dict(found) for name, found in counts.items()}


def main() -> None:
    """Measures what the command line says and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = {"videos": options.videos, "answers": measure(options.videos, Path(name))}
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
