"""Videos that begin with a picture, go on from a clip, or have one event made again: what stays.

    python benchmarks/pictures.py                          # 20 videos: 15 minutes of two cores
    python benchmarks/pictures.py --videos 1 --clips 1     # a first look

Pictures of the demo model's world are drawn; prompts name the kind of subject and the place, never
the colour, so only the picture says it. Each video has three events of one clip's length, by
SynCoS (one optimiser step at each timestep above 600). The tracker reads colour and kind off every
frame. Then some of the videos are continued, and their second event is made again. Writes
benchmarks/results/pictures.md and .json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from demo_model.world import Scene, render, sample_scene
from demo_model.world.scene import LARGE_SUBJECTS
from experiment.intervals import estimate
from syncos_jax.bench import report
from syncos_jax.files import replacing
from syncos_jax.media.video import Video
from syncos_jax.metrics.world import (
    CLIP_FRAMES,
    COLOURS,
    MOTIONS,
    SHAPES,
    global_prompt,
    local_prompt,
)
from syncos_jax.metrics.world.tracker import motion, track
from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.known_frames import known_frames
from syncos_jax.pipeline.request import Request
from syncos_jax.sampling import SynCoS
from syncos_jax.scenario import Scenario

RESULTS = Path(__file__).parent / "results"
SAMPLER = SynCoS(steps=20, t_min=600, iterations=1, learning_rate=1.0)
EVENTS = 3


def scene_of(seed: int) -> tuple[Scene, list[str]]:
    """A random scene, and the motions of the events, of which the scene's own is the first."""
    rng = np.random.default_rng([seed, 7])
    scene = sample_scene(rng, LARGE_SUBJECTS)
    others = [name for name in MOTIONS if name != scene.motion]
    return scene, [scene.motion, *map(str, rng.permutation(others)[: EVENTS - 1])]


def story(scene: Scene, motions: list[str], **inputs: Any) -> Scenario:
    """A scenario whose prompts do not name the colour."""
    events = [{"prompt": local_prompt(m, scene.shape), "frames": CLIP_FRAMES} for m in motions]
    place = global_prompt(scene.shape, None, scene.background)
    return Scenario.from_dict({"global": place, "events": events, **inputs})


def made(pipeline: Pipeline, scenario: Scenario, seed: int) -> tuple[Request, np.ndarray, Video]:
    """Request, latents and video of a scenario."""
    request = pipeline.prepare(scenario, SAMPLER, seed)
    latents = pipeline.latents(request)
    return request, np.asarray(latents), pipeline.video(request, pipeline.decode(latents))


def exact(pipeline: Pipeline, request: Request, latents: np.ndarray) -> bool:
    """Whether the known frames' latents came out bit for bit."""
    cells = request.frame_shape[:2]
    known = known_frames(
        request.known, pipeline.model, request.layout.frames, cells, pipeline.placement
    )
    mask = np.asarray(known.mask)
    return bool(mask.any() and np.array_equal(latents[mask], np.asarray(known.latents)[mask]))


def kept(frames: np.ndarray, scene: Scene, motions: list[str]) -> dict[str, float]:
    """Shares of frames with the picture's colour and kind, and of events with their motion."""
    seen = track(frames)
    colour = seen.colour == list(COLOURS).index(scene.colour)
    kind = seen.shape == SHAPES.index(scene.shape)
    spans = [(n * CLIP_FRAMES, (n + 1) * CLIP_FRAMES) for n in range(len(motions))]
    moved = [motion(seen, *span) == name for span, name in zip(spans, motions, strict=True)]
    return {
        "colour": float(colour.mean()),
        "kind": float(kind.mean()),
        "both": float((colour & kind).mean()),
        "motion": float(np.mean(moved or [0])),
    }


def seams(frames: np.ndarray, at: list[int]) -> list[float]:
    """The difference across each seam, in the 95th percentile of those of all other frames."""
    steps = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    inside = np.delete(steps, [seam - 1 for seam in at])
    return [float(steps[seam - 1] / np.percentile(inside, 95)) for seam in at]


def one_video(pipeline: Pipeline, seed: int, folder: Path) -> tuple[dict[str, Any], Video]:
    """What a video that begins with a picture keeps of it, with references and without."""
    scene, motions = scene_of(seed)
    picture = render([scene])[0, 0]
    path = folder / f"{seed}.png"
    Image.fromarray(picture).save(path)
    request, latents, video = made(pipeline, story(scene, motions, image=str(path)), seed)
    encoded = pipeline.model.encode_frames(picture[None], pipeline.placement)
    apart = np.abs(pipeline.decode(encoded)[0].astype(int) - video.frames[0]).max()
    found: dict[str, Any] = {
        "first_frame": int(apart),
        "exact": exact(pipeline, request, latents),
        "kept": kept(video.frames, scene, motions),
    }
    without = story(scene, motions, image=str(path), reference=False)
    found["without"] = kept(made(pipeline, without, seed)[2].frames, scene, motions)
    return found, video


def one_clip(pipeline: Pipeline, seed: int, video: Video, folder: Path) -> dict[str, Any]:
    """What continuing a video, and making its second event again, leaves as it was."""
    scene, motions = scene_of(seed)
    path = folder / f"{seed}.mkv"
    video.save(path, crf=0)
    found: dict[str, Any] = {}
    more = [name for name in MOTIONS if name not in motions][:1]
    scenarios = {
        "extend": (story(scene, more, extend=str(path)), [len(video)]),
        "redo": (
            story(scene, motions, redo={"video": str(path), "events": [2]}),
            [CLIP_FRAMES, 2 * CLIP_FRAMES],
        ),
    }
    for name, (scenario, at) in scenarios.items():
        request, latents, longer = made(pipeline, scenario, seed + 1000)
        of_events = kept(longer.frames, scene, [])
        found[name] = {
            "exact": exact(pipeline, request, latents),
            "seams": seams(longer.frames, at),
            "both": of_events["both"],
        }
    return found


def table(videos: list[dict[str, Any]], clips: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The lines of the table."""

    def share(values: list[float]) -> str:
        found = estimate(values)
        if found is None or found.low is None:
            return "" if found is None else f"{100 * found.mean:.1f} %"
        return f"{100 * found.mean:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"

    rows = [("first frame differs from the decoded encoding of the picture by at most",
             f"{max(v['first_frame'] for v in videos)} / 255")]  # fmt: skip
    titles = {
        "both": "frames with the picture's colour and kind",
        "colour": "frames with its colour",
        "kind": "frames with its kind",
        "motion": "events with the prompted motion",
    }
    for way, words in (("kept", ""), ("without", ", without references")):
        rows += [
            (f"{title}{words}", share([v[way][k] for v in videos])) for k, title in titles.items()
        ]
    rows.append(("known latents bit-equal", share([float(v["exact"]) for v in videos])))
    for name in ("extend", "redo"):
        found = [clip[name] for clip in clips]
        if not found:
            continue
        each = [ratio for clip in found for ratio in clip["seams"]]
        rows += [
            (f"`{name}`: known latents bit-equal", share([float(c["exact"]) for c in found])),
            (f"`{name}`: frames with colour and kind", share([c["both"] for c in found])),
            (
                f"`{name}`: seams no larger than the 95th percentile of the video's other steps",
                f"{sum(ratio <= 1 for ratio in each)} of {len(each)}",
            ),
            (
                f"`{name}`: the median and largest seam, in that percentile",
                f"{np.median(each):.2f}, {max(each):.2f}",
            ),
        ]
    return rows


def main(given: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--clips", type=int, default=10, help="of them that are continued")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(given)
    pipeline = Pipeline.from_pretrained("demo")
    videos, clips = list[dict[str, Any]](), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as name:
        for seed in range(options.videos):
            found, video = one_video(pipeline, seed, Path(name))
            videos.append(found)
            if seed < options.clips:
                clips.append(one_clip(pipeline, seed, video, Path(name)))
            print(seed, found, clips[seed] if seed < len(clips) else "", file=sys.stderr)
    text = "# Videos from pictures and clips\n\n"
    text += f"`{report.command()}`; jax {jax.__version__}, {jax.devices()[0].device_kind}. "
    text += f"{len(videos)} videos of the demo model, {EVENTS} events each, of which no prompt "
    text += f"names the colour; {len(clips)} of them continued and made again in part. Means with "
    text += "95 % bootstrap intervals.\n\n" + report.markdown(("", ""), table(videos, clips))
    options.out.mkdir(exist_ok=True, parents=True)
    with replacing(options.out / "pictures.md") as part:
        part.write_text(text, encoding="utf-8")
    report.write_json(options.out / "pictures.json", {"videos": videos, "clips": clips})
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
