"""Training of the demo model's text encoder: to tell what a caption says.

Large models begin with a text encoder that has read the world's captions. Ours learns, from
captions alone (half a minute), to write the scene's four attributes into its features, each into a
quarter of them, and then stays as it is. The UNet so finds the motion's word as strong as the
colour's, instead of having to discover both the word and what it does.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from demo_model.loop import Training
from demo_model.world import LARGE_SUBJECTS, Subjects, caption, sample_scene
from syncos_jax.models.clip_text import CLIPTextEncoder
from syncos_jax.models.tokenizer import PromptTokenizer

BATCH = 64
RATE = 1e-3
Batch = tuple[np.ndarray, np.ndarray]


def codes(features: int, attributes: Mapping[str, Sequence[str]]) -> list[np.ndarray]:
    """For each attribute, what its values are to look like: ``[values, features]``.

    Zero outside of the attribute's own share of the features; within it, the corners of a regular
    simplex around zero with a mean square of one. Shares are equal unless an attribute has more
    values; then each has as many features as values, and an equal part of the rest.
    """
    counts = [len(values) for values in attributes.values()]
    shares = [features // len(counts)] * len(counts)
    if max(counts) > shares[0]:
        shares = [count + (features - sum(counts)) // len(counts) for count in counts]
    out, start = [], 0
    for place, (k, share) in enumerate(zip(counts, shares, strict=True)):
        simplex = np.eye(k) - 1 / k
        turn = np.linalg.qr(np.random.default_rng(place).normal(size=(share, k)))[0]
        corners = simplex @ turn.T
        corners *= np.sqrt(share / np.square(corners).sum(axis=1, keepdims=True))
        whole = np.zeros((k, features), np.float32)
        whole[:, start : start + share] = corners
        start += share
        out.append(whole)
    return out


def batches(
    tokenizer: PromptTokenizer, subjects: Subjects, seed: tuple[int, ...]
) -> Iterator[Batch]:
    """Token ids ``[BATCH, S]`` of random captions, and indices of the attributes ``[BATCH, 4]``."""
    rng = np.random.default_rng(seed)
    while True:
        scenes = [sample_scene(rng, subjects) for _ in range(BATCH)]
        ids = tokenizer([caption(scene, rng) for scene in scenes])
        labels = [
            [values.index(getattr(scene, name)) for name, values in subjects.attributes.items()]
            for scene in scenes
        ]
        yield ids, np.asarray(labels, np.int32)


def train_text(
    encoder: CLIPTextEncoder,
    tokenizer: PromptTokenizer,
    folder: Path,
    steps: int,
    seed: int,
    subjects: Subjects = LARGE_SUBJECTS,
) -> CLIPTextEncoder:
    """Train (or resume) in ``folder``; the encoder with its averaged weights.

    The loss is the square error of the features at the end token and the padding after it (the
    attention is causal: these have read all). Unspecified attributes are zero.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graph, params = nnx.split(encoder)
    table = [jnp.asarray(code) for code in codes(encoder.config.features, subjects.attributes)]

    def loss(params, batch, _key: jax.Array) -> jax.Array:
        ids, labels = batch
        read = (jnp.cumsum(ids == tokenizer.end, axis=1) > 0)[..., None]
        wanted = jnp.stack([code[labels[:, i]] for i, code in enumerate(table)]).sum(axis=0)
        error = jnp.square(nnx.merge(graph, params)(ids) - wanted[:, None])
        return jnp.where(read, error, 0.0).sum() / (
            jnp.sum(read, dtype=jnp.float32) * error.shape[-1]
        )

    average = Training(folder, steps, RATE, loss).run(
        params, lambda start: batches(tokenizer, subjects, (seed, start, 1)), seed
    )
    return nnx.merge(graph, average)
