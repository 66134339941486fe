"""VBench's measures that need a network, from frames to numbers (Huang et al., arXiv 2311.17982).

Inputs are made as VBench (Vchitect/VBench, 45e79ec) makes them of video files: floating-point
frames, resized without antialiasing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.metrics.frames import check_frames
from syncos_jax.metrics.networks.clip import CLIP
from syncos_jax.models.resample import centre_crop, resize, shorter_side
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.vit import VisionTransformer

SIDE = 224
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_BATCH = 16


def dino_input(frames: np.ndarray) -> np.ndarray:
    """What VBench shows DINO: the shorter side 224 (bilinear), the whole picture, normalised.

    Args:
        frames: uint8 ``[F, H, W, 3]``.

    Returns:
        float32 ``[F, h, w, 3]``, ``min(h, w) == 224``.
    """
    frames = check_frames(frames)
    height, width = shorter_side(frames.shape[1], frames.shape[2], SIDE)
    return _normalised(resize(frames, height, width, "bilinear"), *_IMAGENET)


def clip_input(frames: np.ndarray, side: int = SIDE) -> np.ndarray:
    """What VBench shows CLIP: the shorter side 224 (bicubic), its middle square, normalised.

    Args:
        frames: uint8 ``[F, H, W, 3]``.
        side: of the square that the network was trained on.

    Returns:
        float32 ``[F, side, side, 3]``.
    """
    frames = check_frames(frames)
    height, width = shorter_side(frames.shape[1], frames.shape[2], side)
    return _normalised(centre_crop(resize(frames, height, width, "bicubic"), side), *_OPENAI)


def _normalised(
    frames: np.ndarray, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> np.ndarray:
    centred = frames / np.float32(255) - np.asarray(mean, np.float32)
    out: np.ndarray = centred / np.asarray(deviation, np.float32)
    return out


@nnx.jit
def _class_token(network: VisionTransformer, images: jax.Array) -> jax.Array:
    return network(images)[:, 0]


@nnx.jit
def _clip_image(network: CLIP, images: jax.Array) -> jax.Array:
    return network.image_features(images)


@nnx.jit
def _clip_text(network: CLIP, ids: jax.Array) -> jax.Array:
    return network.text_features(ids)


def in_batches(
    run: Callable[[Any, jax.Array], Any],
    network: Any,
    rows: np.ndarray,
    prepare: Callable[[np.ndarray], np.ndarray],
    batch: int = _BATCH,
) -> Any:
    """``run(network, prepare(rows))`` a batch at a time, all of one size, in full precision.

    Args:
        run: returns arrays with one row each.
        network: its first argument.
        rows: what there is one row of for each result.
        prepare: makes its second argument.
        batch: rows at a time; the last ones are filled up with copies of the first.

    Returns:
        As ``run``, of NumPy arrays with one row for each of ``rows``.
    """
    batch = min(batch, len(rows))
    parts = []
    with jax.default_matmul_precision("highest"):
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            fill = np.repeat(rows[:1], batch - len(part), axis=0)
            images = jnp.asarray(prepare(np.concatenate([part, fill])))
            parts.append(jax.tree.map(np.asarray, run(network, images)))
    return jax.tree.map(lambda *a: np.concatenate(a)[: len(rows)], *parts)


def dino_features(network: VisionTransformer, frames: np.ndarray) -> np.ndarray:
    """DINO's features of frames, as VBench's subject consistency compares them.

    Args:
        network: DINO's or DINOv2's.
        frames: uint8 ``[F, H, W, 3]``.

    Returns:
        float32 ``[F, D]``: the class token after the last norm.
    """
    features: np.ndarray = in_batches(_class_token, network, check_frames(frames), dino_input)
    return features


def clip_features(network: CLIP, frames: np.ndarray) -> np.ndarray:
    """CLIP's features of frames, as VBench's background consistency compares them.

    Args:
        network: CLIP.
        frames: uint8 ``[F, H, W, 3]``.

    Returns:
        float32 ``[F, E]``, of length 1.
    """
    side = network.config.vision.image
    features = in_batches(
        _clip_image, network, check_frames(frames), lambda part: clip_input(part, side)
    )
    return _unit(features)


def clip_text_features(
    network: CLIP, tokenizer: PromptTokenizer, prompts: Sequence[str]
) -> np.ndarray:
    """CLIP's features of prompts: float32 ``[n, E]``, of length 1."""
    return _unit(in_batches(_clip_text, network, tokenizer(prompts), lambda ids: ids))


def fidelity(images: np.ndarray, texts: np.ndarray) -> float:
    """How well frames show their prompts: the mean cosine of CLIP's features (CLIP score without
    its factor, Hessel et al., arXiv 2104.08718).

    Args:
        images: ``[F, E]``, of length 1.
        texts: ``[1, E]``, one prompt for all frames, or ``[F, E]``, each frame's own.
    """
    if len(texts) not in (1, len(images)):
        raise InputError(f"fidelity: {len(images)} frames, but {len(texts)} prompts")
    return float((images * texts).sum(axis=1, dtype=np.float64).mean())


def aesthetic_quality(images: np.ndarray, weight: np.ndarray, bias: float) -> float:
    """VBench's aesthetic quality: a linear head over CLIP ViT-L/14, a tenth of its mean.

    Args:
        images: ``[F, E]``, of length 1.
        weight: ``[E]`` of the head (LAION's ``sa_0_4_vit_l_14_linear.pth``).
        bias: of the head.
    """
    scores = images.astype(np.float64) @ np.asarray(weight, np.float64) + float(bias)
    return float(scores.mean() / 10)


def _unit(features: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: np.ndarray = features / np.maximum(length, 1e-12)
    return unit
