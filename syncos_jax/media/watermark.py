"""An imperceptible watermark: 64 bits in the luma of a video, found again without the original.

A pattern of low spatial frequencies, periodic over a square tile, is added to every frame; its
sign alternates every half second. Half of its frequencies have fixed phases (they give presence
and position), the other half carry the payload in the signs of theirs, with a checksum and a
convolutional code. The detector takes the difference of neighbouring half seconds, which cancels
what stands still, folds it onto the tile and correlates phases (spread spectrum: Cox et al., IEEE
Trans. Image Processing 6(12), 1997; phase-only correlation: Kuglin and Hines, 1975).

The phases are public, so anybody who studies this can remove or forge a watermark: it marks what
is generated, it does not protect it.
"""

from __future__ import annotations

import hashlib
import math
import os
from binascii import crc_hqx
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from syncos_jax.errors import Argument, InputError

PAYLOAD_BITS = 64
STRENGTH = 1.98
"""Root mean square of the change, in grey levels of 255: 42.1 dB with rounding."""
SLOT_SECONDS = 0.5
FALSE_ALARM = 1e-6
_SMALLEST, _LARGEST = 64, 1024  # sides of the tile
_BAND = (8.0, 32.0)  # cycles a tile
_FINEST = 0.45  # cycles a pixel, at most
_EXPONENT = 0.5  # amplitude falls as frequency ** -0.5
_SCALES = 1.25 ** np.linspace(-1, 1, 65)
_QUARTERS = 4  # positions within a slot that are tried
_MAX_PIXELS = 400_000_000  # of the luma that is kept in memory
_POLYNOMIALS = (0o133, 0o171)  # rate 1/2, constraint length 7
_MEMORY = 6


@dataclass(frozen=True)
class Detection:
    """What was found in a video.

    Attributes:
        payload: the 64 bits, where they could be read; else None.
        found: whether there is a watermark: `false_alarm` is at most `FALSE_ALARM`.
        false_alarm: bound on the probability that an unmarked video looks like this one or more
            so, over everything that was tried (Hoeffding's inequality and a union bound).
        score: correlation in standard deviations of an unmarked video.
    """

    payload: int | None
    found: bool
    false_alarm: float
    score: float


class Watermark:
    """Adds the watermark of one video, frame by frame.

    Args:
        payload: 0 to 2**64 - 1.
        height, width: of the frames, in pixels.
        fps: frames per second.
        strength: root mean square of the change, in grey levels of 255.

    Raises:
        InputError: the payload has more than 64 bits, or the frames are smaller than 64 pixels.
    """

    def __init__(
        self, payload: int, height: int, width: int, fps: float, strength: float = STRENGTH
    ) -> None:
        check_size(height, width)
        if not 0 <= payload < 2**PAYLOAD_BITS:
            raise InputError(f"watermark payload is {payload}, but must have 64 bits")
        side = tile_side(height, width)
        tile = _pattern(payload, side) * strength
        repeats = (-(-height // side), -(-width // side))
        self._pattern = jnp.asarray(np.tile(tile, repeats)[:height, :width, None], jnp.float32)
        self._slot = max(1, round(SLOT_SECONDS * fps))

    def mark(self, frame: np.ndarray, index: int) -> np.ndarray:
        """Frame number `index` of the video, uint8 ``[H, W, 3]``, with the watermark."""
        sign = 1.0 - 2.0 * (index // self._slot % 2)
        return np.asarray(_add(frame, self._pattern, sign))


def check_size(height: int, width: int) -> None:
    """Raises InputError for frames too small to carry a watermark."""
    if min(height, width) < _SMALLEST:
        raise InputError(
            f"a video of {width}×{height} pixels is too small for a watermark, which needs at "
            f"least {_SMALLEST} pixels on each side",
            remedy=("enlarge it with ", Argument("scale"), ", or turn the watermark off"),
        )


def tile_side(height: int, width: int) -> int:
    """Side of the tile that a video of this size is marked with, in pixels: a power of two."""
    return min(_LARGEST, max(_SMALLEST, 2 ** int(math.log2(min(height, width)))))


def detect(luma: np.ndarray, times: np.ndarray, *, search: bool = True) -> Detection:
    """Looks for a watermark.

    Args:
        luma: uint8 ``[F, H, W]``; `read_luma` reads it from a file.
        times: float ``[F]``, when each frame is shown, in seconds.
        search: whether to try other sizes and frame rates where none is found at once (seconds).
    """
    tries, best = 0, Detection(None, False, 1.0, 0.0)
    seen: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
    for slots, side, scale in _hypotheses(luma.shape, times, search):
        if slots is not seen[0]:
            seen = (slots, _difference(luma, slots))
        if seen[1] is None:
            continue
        tries += side * side
        score, soft = _correlate(_resized(seen[1], scale), side)
        bound = min(1.0, 2.0 * tries * math.exp(-0.5 * score * score))
        if bound < best.false_alarm or (bound == 1.0 and score > best.score):
            found = bound <= FALSE_ALARM
            payload = _decode(soft) if found else None
            best = Detection(payload, found, bound, score)
            if payload is not None:
                break
    return best


def read_luma(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Luma uint8 ``[F, H, W]`` and times ``[F]`` in seconds of the beginning of a video.

    Raises:
        InputError: the file is no video.
    """
    from syncos_jax.media.read import frames_with_times

    frames: list[np.ndarray] = []
    times: list[float] = []
    for time, frame in frames_with_times(path):
        frames.append(np.asarray(Image.fromarray(frame).convert("L")))
        times.append(time)
        if len(frames) * frames[0].size > _MAX_PIXELS:
            break
    if not frames:
        raise InputError(f"{path}: has no frames in it")
    return np.stack(frames), np.asarray(times)


def _hypotheses(
    shape: tuple[int, ...], times: np.ndarray, search: bool
) -> Iterator[tuple[np.ndarray, int, float]]:
    """(slot of each frame, side of the tile, factor to resize by), the likely ones first."""
    side = tile_side(*shape[1:])
    phases = [
        np.floor(times / SLOT_SECONDS + quarter / _QUARTERS + 1e-4).astype(int)
        for quarter in range(_QUARTERS)
    ]
    for slots in phases:
        yield slots, side, 1.0
    if not search:
        return
    for length in (2, 3, 4, 5, 6, 8, 10, 12, 13, 15, 25, 30):  # played at another rate
        yield np.arange(len(times)) // length, side, 1.0
    for other in (side, 2 * side, side // 2):
        if _SMALLEST <= other <= _LARGEST:
            for slots in phases[:1]:
                for scale in sorted(_SCALES, key=lambda value: abs(math.log(value))):
                    yield slots, other, float(scale)


@partial(jax.jit, donate_argnums=())
def _add(frame: jax.Array, pattern: jax.Array, sign: float) -> jax.Array:
    marked = jnp.round(frame.astype(jnp.float32) + pattern * jnp.float32(sign))
    return jnp.clip(marked, 0.0, 255.0).astype(jnp.uint8)


@cache
def _bins(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(row, column) of the frequencies used, their radius and phase; the first ones give position.

    They are the same, in cycles a tile, for every side; small tiles go without the finest.
    """
    finest = min(_BAND[1], _FINEST * side)
    reach = int(finest)
    rows, columns = np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij")
    half = (rows > 0) | ((rows == 0) & (columns > 0))  # the others are their conjugates
    radius = np.hypot(rows, columns)
    chosen = half & (radius >= _BAND[0]) & (radius <= finest)
    index = np.stack([rows[chosen], columns[chosen]], axis=1)
    count = len(index)
    stream = hashlib.shake_256(b"syncos_jax watermark 1").digest(8 * count)
    order, phase = np.frombuffer(stream, "<u4").reshape(2, count)
    order = np.argsort(order, kind="stable")
    return index[order] % side, radius[chosen][order], phase * (2 * np.pi / 2**32), count // 2


def _pattern(payload: int, side: int) -> np.ndarray:
    """The tile, float64 ``[side, side]``, of root mean square 1."""
    index, radius, phase, position = _bins(side)
    bits = _encode(payload)
    signs = np.ones(len(index))
    signs[position:] = 1.0 - 2.0 * np.resize(bits, len(index) - position)
    spectrum = np.zeros((side, side), complex)
    spectrum[tuple(index.T)] = radius**-_EXPONENT * signs * np.exp(1j * phase)
    spectrum[tuple(-index.T)] = np.conj(spectrum[tuple(index.T)])
    tile = np.fft.ifft2(spectrum).real
    return tile / tile.std()


def _difference(luma: np.ndarray, slots: np.ndarray) -> np.ndarray | None:
    """One picture: each slot less its neighbours, with alternating signs, quiet places louder.

    None where there are no two slots.
    """
    names = np.unique(slots)
    if len(names) < 2:
        return None
    counts = np.array([np.count_nonzero(slots == name) for name in names], np.float32)
    means = np.stack([luma[slots == name].mean(axis=0, dtype=np.float32) for name in names])
    change = np.empty_like(means)
    change[1:-1] = means[1:-1] - 0.5 * (means[:-2] + means[2:])
    change[0], change[-1] = means[0] - means[1], means[-1] - means[-2]
    total, weights = np.zeros_like(means[0]), np.zeros_like(means[0])
    for name, count, picture in zip(names, counts, change, strict=True):
        weight = count / (_box(picture * picture, 4) + 1.0)
        total += (1 - 2 * (name % 2)) * weight * picture
        weights += weight
    flat = total / weights
    return flat / np.sqrt(_box(flat * flat, 7) + 0.3)


def _correlate(flat: np.ndarray, side: int) -> tuple[float, np.ndarray]:
    """The score of the best position, and the soft bits there."""
    index, _, phase, position = _bins(side)
    values = np.fft.fft2(_fold(flat, side))[tuple(index.T)]
    size = np.abs(values)
    size = np.minimum(size / (np.median(size) + 1e-12), 2.0)
    values = size * np.exp(1j * (np.angle(values) - phase))
    spectrum = np.zeros((side, side), complex)
    spectrum[tuple(index[:position].T)] = values[:position]
    scores = np.fft.ifft2(spectrum).real * side * side
    scores /= math.sqrt(0.5 * np.square(size[:position]).sum() + 1e-12)
    place = np.unravel_index(np.abs(scores).argmax(), scores.shape)
    turn = np.exp(2j * np.pi * (index @ np.array(place)) / side) * np.sign(scores[place])
    soft = (values * turn).real[position:]
    return float(abs(scores[place])), soft


def _fold(flat: np.ndarray, side: int) -> np.ndarray:
    """The mean of all tiles."""
    padded = [-(-length // side) * side for length in flat.shape]
    total = np.zeros(padded, np.float32)
    count = np.zeros(padded, np.float32)
    total[: flat.shape[0], : flat.shape[1]] = flat
    count[: flat.shape[0], : flat.shape[1]] = 1.0
    shape = (padded[0] // side, side, padded[1] // side, side)
    return total.reshape(shape).sum(axis=(0, 2)) / np.maximum(count.reshape(shape).sum((0, 2)), 1.0)


def _resized(flat: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1.0:
        return flat
    size = (round(flat.shape[1] * scale), round(flat.shape[0] * scale))
    return np.asarray(Image.fromarray(flat).resize(size, Image.Resampling.BICUBIC))


def _box(values: np.ndarray, reach: int) -> np.ndarray:
    """The mean over a square of side ``2 * reach + 1``; the edges are repeated."""
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (reach + 1, reach)
        sums = np.cumsum(np.pad(values, pad, mode="edge"), axis=axis, dtype=np.float64)
        width = 2 * reach + 1
        ends = np.take(sums, np.arange(width, sums.shape[axis]), axis=axis)
        values = (ends - np.take(sums, np.arange(sums.shape[axis] - width), axis=axis)) / width
    return values.astype(np.float32)


def _encode(payload: int) -> np.ndarray:
    """172 bits: payload, CRC-16 and six zeros, through a convolutional code of rate 1/2."""
    data = payload.to_bytes(8, "big")
    data += crc_hqx(data, 0xFFFF).to_bytes(2, "big")
    bits = np.append(np.unpackbits(np.frombuffer(data, np.uint8)), np.zeros(_MEMORY, np.uint8))
    state, coded = 0, []
    for bit in bits:
        state = (state << 1 | int(bit)) & 0x7F
        coded += [(state & polynomial).bit_count() & 1 for polynomial in _POLYNOMIALS]
    return np.array(coded)


def _decode(soft: np.ndarray) -> int | None:
    """The payload by the Viterbi algorithm; None where its checksum is wrong."""
    length = 2 * (PAYLOAD_BITS + 16 + _MEMORY)
    summed = np.zeros(length)
    np.add.at(summed, np.arange(len(soft)) % length, soft)
    states = np.arange(2 ** (_MEMORY + 1))  # of the register once a bit came in
    outputs = np.array(
        [[1 - 2 * ((int(s) & p).bit_count() & 1) for p in _POLYNOMIALS] for s in states]
    )
    metric = np.full(2**_MEMORY, -np.inf)
    metric[0] = 0.0
    choices = []
    for pair in summed.reshape(-1, 2):
        # State s was reached from register r where r's last six bits are s; r's first six, before.
        reached = metric[states >> 1] + outputs @ pair
        reached = reached.reshape(2, -1)  # by the bit that falls out of the register
        choices.append(reached.argmax(axis=0))
        metric = reached.max(axis=0)
    state, bits = 0, []
    for choice in reversed(choices):
        bits.append(state & 1)
        state = (state | int(choice[state]) << _MEMORY) >> 1
    data = np.packbits(bits[::-1][: PAYLOAD_BITS + 16]).tobytes()
    if crc_hqx(data[:8], 0xFFFF).to_bytes(2, "big") != data[8:]:
        return None
    return int.from_bytes(data[:8], "big")
