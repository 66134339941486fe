"""First training of the demo model's text encoder: to tell what a caption says.

Large models begin with a text encoder that has read the world's captions. Ours learns to name the
scene's attributes from a caption alone (half a minute), before it is trained on with the UNet: the
UNet then finds the motion's word in features that already tell it, instead of having to discover
both at once.
"""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from syncos_jax.demo.loop import Training
from syncos_jax.models.clip_text import CLIPTextEncoder
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.world import caption, sample_scene
from syncos_jax.world.scene import ATTRIBUTES

BATCH = 64
RATE = 1e-3
Batch = tuple[np.ndarray, np.ndarray]


class Namer(nnx.Module):
    """A text encoder and one linear classifier for each attribute."""

    def __init__(self, encoder: CLIPTextEncoder, *, rngs: nnx.Rngs):
        self.encoder = encoder
        width = encoder.config.features
        self.heads = nnx.List([nnx.Linear(width, len(v), rngs=rngs) for v in ATTRIBUTES.values()])

    def __call__(self, ids: jax.Array) -> list[jax.Array]:
        """``ids [b, S]`` -> for each attribute, logits ``[b, S, values]`` at every token."""
        features = self.encoder(ids)
        return [head(features) for head in self.heads]


def batches(tokenizer: PromptTokenizer, seed: tuple[int, ...]) -> Iterator[Batch]:
    """Token ids ``[BATCH, S]`` of random captions, and indices of the attributes ``[BATCH, 4]``."""
    rng = np.random.default_rng(seed)
    while True:
        scenes = [sample_scene(rng) for _ in range(BATCH)]
        ids = tokenizer([caption(scene, rng) for scene in scenes])
        labels = [
            [values.index(getattr(scene, name)) for name, values in ATTRIBUTES.items()]
            for scene in scenes
        ]
        yield ids, np.asarray(labels, np.int32)


def train_text(
    encoder: CLIPTextEncoder, tokenizer: PromptTokenizer, folder: Path, steps: int, seed: int
) -> CLIPTextEncoder:
    """Train (or resume) in ``folder``; the encoder with its averaged weights.

    The loss is the cross entropy of the attributes at the end token and the padding after it (the
    attention is causal: these have read all). What a caption leaves open costs what it must.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graph, params = nnx.split(Namer(encoder, rngs=nnx.Rngs(seed)))

    def loss(params, batch, _key: jax.Array) -> jax.Array:
        ids, labels = batch
        read = jnp.cumsum(ids == tokenizer.end, axis=1) > 0
        total = jnp.zeros(())
        for i, logits in enumerate(nnx.merge(graph, params)(ids)):
            wanted = jnp.broadcast_to(labels[:, i, None], ids.shape)
            with jax.numpy_dtype_promotion("standard"):
                cost = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
            total += jnp.where(read, cost, 0.0).sum() / read.sum()
        return total

    average = Training(folder, steps, RATE, loss).run(
        params, lambda start: batches(tokenizer, (seed, start, 1)), seed
    )
    return nnx.merge(graph, average).encoder
