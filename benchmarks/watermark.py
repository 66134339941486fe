"""What the watermark survives: detection by attack, over demo videos and clips that you name.

    python benchmarks/watermark.py --videos 200 --clips DIR --out benchmarks/results/watermark.json

Demo videos are co-denoised by the shipped model in few steps, at random prompts and seeds, and
enlarged as `syncos generate` does. DIR holds clips (mp4, webp, gif) of any size; the first 120
frames of each count, at 480 pixels at most. Unmarked videos give the false alarms.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from syncos_jax.media.read import constant_rate, frames_with_times
from syncos_jax.media.watermark import Watermark, detect

FRAMES, SIDE = 120, 480
PLACES = ("a green meadow", "a sandy beach", "a city street", "a starry sky")
MOTIONS = ("rolls to the left", "rolls to the right", "grows", "shrinks")


def recoded(frames: np.ndarray, fps: float, codec: str, crf: int) -> np.ndarray:
    """Frames after a lossy codec."""
    options = {"crf": str(crf)} | ({"b": "0", "cpu-used": "5"} if "vp9" in codec else {})
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    file = io.BytesIO()
    with av.open(file, "w", format="mp4" if codec == "libx264" else "webm") as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in frames:
            picture = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Frames of another size."""
    return np.stack([np.asarray(Image.fromarray(f).resize((width, height))) for f in frames])


def cropped(frames: np.ndarray) -> np.ndarray:
    """A tenth of each side gone, half of it at each edge."""
    top, left = (round(0.05 * side) for side in frames.shape[1:3])
    return frames[:, top : frames.shape[1] - top, left : frames.shape[2] - left]


Attack = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]


def attacks() -> dict[str, Attack]:
    """Name -> (frames, fps) to (frames, times)."""

    def timed(change: Callable[[np.ndarray, float], np.ndarray]) -> Attack:
        def attack(frames: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
            changed = change(frames, fps)
            return changed, np.arange(len(changed)) / fps

        return attack

    def rate(frames: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
        shown = np.arange(0, len(frames), 1.25).astype(int)
        return frames[shown], shown / fps

    return {
        "as marked": timed(lambda v, fps: v),
        "H.264 crf 28": timed(lambda v, fps: recoded(v, fps, "libx264", 28)),
        "H.264 crf 35": timed(lambda v, fps: recoded(v, fps, "libx264", 35)),
        "VP9 crf 36": timed(lambda v, fps: recoded(v, fps, "libvpx-vp9", 36)),
        "half and back": timed(
            lambda v, fps: resized(
                resized(v, v.shape[1] // 2, v.shape[2] // 2), v.shape[1], v.shape[2]
            )
        ),
        "crop 10 %": timed(lambda v, fps: cropped(v)),
        "crop 10 %, enlarged": timed(lambda v, fps: resized(cropped(v), v.shape[1], v.shape[2])),
        "4/5 of the frame rate": rate,
    }


def demo_videos(count: int) -> Iterator[tuple[str, np.ndarray, float]]:
    """Videos of the shipped model, 40 frames, enlarged to 256 pixels."""
    from syncos_jax import CoDenoising, Event, Pipeline, Scenario

    pipeline = Pipeline.from_pretrained("demo")
    stories = itertools.cycle(itertools.product(PLACES, itertools.permutations(MOTIONS, 2)))
    for seed, (place, motions) in zip(range(count), stories, strict=False):
        events = [Event(prompt=f"the ball {motion}", frames=20) for motion in motions]
        scenario = Scenario(global_prompt=f"a ball on {place}", events=events)
        video = pipeline(scenario, sampler=CoDenoising(steps=4), seed=seed)
        grow = 256 // video.frames.shape[1]
        yield f"demo {seed}", video.frames.repeat(grow, 1).repeat(grow, 2), video.fps


def clips(folder: Path) -> Iterator[tuple[str, np.ndarray, float]]:
    """Clips of a folder, the beginning of each."""
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".mp4", ".webp", ".gif")):
        read = list(itertools.islice(frames_with_times(path), FRAMES))
        if len(read) < 16:
            continue
        fps, shown = constant_rate(np.array([time for time, _ in read]))
        frames = np.stack([read[index][1] for index in shown])
        shrink = min(1.0, SIDE / min(frames.shape[1:3]))
        if shrink < 1:
            frames = resized(frames, *(round(shrink * side) for side in frames.shape[1:3]))
        yield path.name, frames, fps


def luma(frames: np.ndarray) -> np.ndarray:
    """Luma uint8 of RGB frames."""
    return np.stack([np.asarray(Image.fromarray(f).convert("L")) for f in frames])


def measure(videos: Iterator[tuple[str, np.ndarray, float]]) -> dict:
    """Detection and payload by attack, PSNR, false alarms and seconds."""
    found = {name: {"detected": [], "payload": [], "score": []} for name in attacks()}
    psnr, unmarked, seconds = [], [], []
    for number, (name, frames, fps) in enumerate(videos):
        payload = (0x9E3779B97F4A7C15 * (number + 1)) % 2**64
        mark = Watermark(payload, *frames.shape[1:3], fps).mark
        mark(frames[0], 0)  # compile
        begin = time.perf_counter()
        marked = np.stack([mark(frame, index) for index, frame in enumerate(frames)])
        seconds.append((time.perf_counter() - begin) / len(frames))
        error = np.mean((marked.astype(np.float32) - frames) ** 2)
        psnr.append(float(10 * np.log10(255**2 / error)))
        for attack, change in attacks().items():
            changed, times = change(marked, fps)
            seen = detect(luma(changed), times)
            found[attack]["detected"].append(seen.found)
            found[attack]["payload"].append(seen.payload == payload)
            found[attack]["score"].append(seen.score)
        unmarked.append(detect(luma(frames), np.arange(len(frames)) / fps).false_alarm)
        print(
            f"{name}: {psnr[-1]:.1f} dB, lowest score "
            f"{min(each['score'][-1] for each in found.values()):.1f}",
            flush=True,
        )
    return {
        "videos": len(psnr),
        "psnr_db": {"lowest": min(psnr), "median": float(np.median(psnr))},
        "seconds_a_frame": float(np.median(seconds)),
        "unmarked": {
            "false_alarms": sum(p <= 1e-6 for p in unmarked),
            "lowest_bound": min(unmarked),
        },
        "attacks": {
            name: {
                "detected": float(np.mean(each["detected"])),
                "payload": float(np.mean(each["payload"])),
                "score_lowest": min(each["score"]),
                "score_median": float(np.median(each["score"])),
            }
            for name, each in found.items()
        },
    }


def false_alarms(count: int) -> dict:
    """Unmarked noise of many kinds, each a video of its own."""
    rng = np.random.default_rng(0)
    lowest = 1.0
    for _ in range(count):
        side = int(rng.choice([64, 128]))
        small = rng.integers(0, 256, (16, side // 4, side // 4)).astype(np.uint8)
        video = np.stack([np.asarray(Image.fromarray(f).resize((side, side))) for f in small])
        lowest = min(lowest, detect(video, np.arange(16) / 8.0, search=False).false_alarm)
    return {"videos": count, "false_alarms": int(lowest <= 1e-6), "lowest_bound": lowest}


def main() -> None:
    """Measures what the command line says and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=200, help="demo videos")
    parser.add_argument("--clips", type=Path, help="folder of clips")
    parser.add_argument("--unmarked", type=int, default=2000, help="unmarked noise videos")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    result = {}
    if options.videos:
        result["demo"] = measure(demo_videos(options.videos))
    if options.clips:
        result["clips"] = measure(clips(options.clips))
    result["noise"] = false_alarms(options.unmarked)
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
