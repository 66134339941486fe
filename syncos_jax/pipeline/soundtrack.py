"""The soundtrack of a request: the one that is given, or that of the video it extends or redoes."""

from __future__ import annotations

from syncos_jax.media.register import file_sha256
from syncos_jax.media.sound import Soundtrack, has_sound
from syncos_jax.pipeline.known_inputs import InputFile
from syncos_jax.scenario import Scenario


def read_sound(
    scenario: Scenario, frames: int, fps: float
) -> tuple[Soundtrack | None, InputFile | None]:
    """The soundtrack and the file that it comes from; None where there is none.

    Args:
        scenario: says what is given.
        frames: of the whole video; `fps`: frames per second.

    Raises:
        InputError: the file cannot be read, or has no sound or too little.
    """
    if scenario.audio is not None:
        track = Soundtrack(scenario.audio, scenario.loop_audio)
    else:
        kept = scenario.redo.video if scenario.redo is not None else scenario.extend
        if kept is None or (scenario.extend and not scenario.join) or not has_sound(kept):
            return None, None
        track = Soundtrack(kept, in_sync=True)
    note = track.check(frames / fps)
    return track, InputFile("audio", track.path, file_sha256(track.path), 0, frames, note)
