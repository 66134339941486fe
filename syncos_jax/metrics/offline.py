"""Stand-ins for VBench's features out of packages that pip installs, without a download elsewhere.

EfficientNet-lite0 in place of DINO and CLIP; for prompts ConSE (Norouzi et al., arXiv 1312.5650):
the classes that a frame is taken for, weighed by their probabilities, in a space of sentences
(MiniLM). Their values are comparable with each other only, never with VBench's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from PIL import Image

from syncos_jax.errors import InputError
from syncos_jax.metrics.frames import check_frames
from syncos_jax.metrics.networks.efficientnet import EfficientNet
from syncos_jax.metrics.networks.read import read_sentence_encoder
from syncos_jax.metrics.networks.sentence import SentenceEncoder
from syncos_jax.metrics.vbench import SIDE, in_batches

TOP = 10
"""Classes that ConSE looks at; its authors' choice."""

_MOST_TOKENS = 128  # of a sentence; MiniLM was trained on that many
_ROUND_TO = 16  # tokens, so that few shapes are compiled

DISTRACTORS = (
    "a bowl of fresh fruit on a kitchen table",
    "a busy street in a big city at night",
    "a cat sleeping on a sofa",
    "a chef cutting vegetables in a restaurant",
    "a child building a castle of sand on the beach",
    "a cyclist riding along a mountain road",
    "a dog running through a park",
    "a farmer driving a tractor over a field",
    "a fire burning in a fireplace",
    "a football match in a full stadium",
    "a fox in a snowy forest",
    "a herd of elephants crossing the savanna",
    "a horse galloping over a meadow",
    "a lighthouse in a storm",
    "a man playing the guitar on a stage",
    "a passenger plane taking off",
    "a person typing on a laptop in an office",
    "a pianist at a grand piano",
    "a red sports car on a race track",
    "a rocket being launched into space",
    "a sailing boat on a calm lake",
    "a school of fish around a coral reef",
    "a steam train crossing a bridge",
    "a surfer riding a high wave",
    "a tortoise walking over dry ground",
    "a volcano with flowing lava",
    "a waterfall in the jungle",
    "a woman reading a book in a library",
    "an astronaut floating above the earth",
    "an eagle gliding over a canyon",
    "an old man fishing from a pier",
    "bees on a sunflower",
    "clouds moving over the desert",
    "coffee being poured into a cup",
    "dancers in colourful costumes at a carnival",
    "hot air balloons rising at dawn",
    "people skiing down a slope",
    "rain falling on a window",
    "the northern lights above a cabin",
    "two robots working in a factory",
)
"""Prompts of other videos, among which the right one is ranked."""


def lite0_input(frames: np.ndarray) -> np.ndarray:
    """The middle square at 224 × 224 (bicubic, antialiased), as (value - 127) / 128.

    Args:
        frames: uint8 ``[F, H, W, 3]``.

    Returns:
        float32 ``[F, 224, 224, 3]``.
    """
    frames = check_frames(frames)
    height, width = frames.shape[1:3]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    small = [
        np.asarray(Image.fromarray(f).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))
        for f in frames
    ]
    out: np.ndarray = (np.stack(small).astype(np.float32) - 127) / 128
    return out


@nnx.jit
def _lite0(network: EfficientNet, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    features, logits = network(images)
    return features, jax.nn.softmax(logits)


def lite0_features(network: EfficientNet, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What EfficientNet-lite0 sees.

    Args:
        network: see `syncos_jax.metrics.networks.read.read_lite0`.
        frames: uint8 ``[F, H, W, 3]``.

    Returns:
        float32 ``[F, 1280]`` pooled features, and ``[F, 1000]`` probabilities of ImageNet's
        classes.
    """
    features, probabilities = in_batches(_lite0, network, check_frames(frames), lite0_input)
    return features, probabilities


@nnx.jit
def _encode(network: SentenceEncoder, ids: jax.Array) -> jax.Array:
    return network(ids, ids != 0)


class Sentences:
    """Sentence features by MiniLM.

    Args:
        folder: ``config.json``, ``model.safetensors`` and ``tokenizer.json``.

    Raises:
        InputError: a missing or unfit file; says which and why.
    """

    def __init__(self, folder: Path):
        from tokenizers import Tokenizer

        self.network = read_sentence_encoder(folder)
        path = folder / "tokenizer.json"
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises Exception itself
            raise InputError(f"{path}: cannot be read as a tokenizer: {error}") from error
        config = self.network.config
        if self._tokenizer.get_vocab_size() > config.vocabulary:
            raise InputError(f"{path}: has more tokens than the network, {config.vocabulary}")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(min(_MOST_TOKENS, config.tokens))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, D]``, of length 1."""
        rows = [encoded.ids for encoded in self._tokenizer.encode_batch(list(texts))]
        longest = -(-max(map(len, rows)) // _ROUND_TO) * _ROUND_TO
        longest = min(longest, self.network.config.tokens)
        ids = np.zeros((len(rows), longest), np.int32)  # 0 is the padding
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = tokens
        features: np.ndarray = in_batches(_encode, self.network, ids, lambda part: part, batch=100)
        return features


def class_names(path: Path) -> list[str]:
    """The names of ImageNet's 1000 classes, in their order; InputError where they are not."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a list of class names: {error}") from error
    if not (isinstance(names, list) and len(names) == 1000 and all(map(_is_text, names))):
        raise InputError(f"{path}: is not a list of ImageNet's 1000 class names")
    return names


def _is_text(name: Any) -> bool:
    return isinstance(name, str) and bool(name)


def likeliest(probabilities: np.ndarray, top: int = TOP) -> np.ndarray:
    """The ``top`` likeliest classes of each frame, the first first: ``[F, K] -> [F, top]``."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :top]


def conse(probabilities: np.ndarray, names: np.ndarray, top: int = TOP) -> np.ndarray:
    """ConSE: the mean of the likeliest classes' features, weighed by their probabilities.

    Args:
        probabilities: ``[F, K]``.
        names: features of the classes' names, ``[K, D]``; only those of the `likeliest` are read.
        top: classes that count.

    Returns:
        float64 ``[F, D]``, of length 1.
    """
    if probabilities.shape[1] != len(names) or not 1 <= top <= len(names):
        raise InputError(
            f"conse: {probabilities.shape[1]} classes, {len(names)} names, the top {top}"
        )
    order = likeliest(probabilities, top)
    weights = np.take_along_axis(probabilities, order, axis=1).astype(np.float64)
    mean = np.einsum("ft,ftd->fd", weights, names[order].astype(np.float64))
    unit: np.ndarray = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return unit


def prompt_rank(frames: np.ndarray, prompt: np.ndarray, others: np.ndarray) -> int:
    """The place of a prompt among other videos' prompts: 1 is the best of ``1 + n``.

    By the mean cosine with the frames; those that are as good as the prompt do not count against
    it.

    Args:
        frames: `conse` of the frames, ``[F, D]``.
        prompt: features ``[D]`` of length 1.
        others: features ``[n, D]`` of length 1.
    """
    middle = frames.mean(axis=0)
    return 1 + int((others @ middle > prompt @ middle).sum())
