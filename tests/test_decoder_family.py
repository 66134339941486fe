"""A family of one's own whose text encoder is a decoder language model, in a few lines."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax import CoDenoising, NoiseSchedule, Pipeline, Scenario
from syncos_jax.models import Geometry, Model, register
from syncos_jax.models.family import family_named
from syncos_jax.models.gemma3 import Gemma3Config, Gemma3Encoder

# ---- the family: 34 lines ----
TEXT = Gemma3Config(
    vocabulary=128, features=8, inner=16, full=(False, True), heads=2, key_heads=1, head_size=8
)


class Poet(Model):
    """Latents drift towards a colour that the last hidden states of a language model name."""

    family = name = "poet"
    schedule = NoiseSchedule.flow(shift=2.0)
    steps, guidance, perturbed_guidance = 4, 2.0, 0.5
    geometry = Geometry(
        window=4, stride=2, channels=3, cell=8, height=16, width=16, fps=4, temporal=2, causal=True
    )

    def __init__(self):
        self.text_encoder = Gemma3Encoder(TEXT, rngs=nnx.Rngs(0))
        self.params = {"colour": jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)}

    def encode_prompts(self, prompts):
        ids = np.zeros((len(prompts), 16), np.int32)
        for row, prompt in zip(ids, prompts, strict=True):  # padded on the left
            letters = [ord(letter) % 128 for letter in prompt[:16]]
            row[16 - len(letters) :] = letters
        return {"text": self.text_encoder(jnp.asarray(ids), jnp.asarray(ids > 0))[-1, :, -1]}

    def complete_conditioning(self, cond, fps, perturbed):
        return {**cond, "perturbed": jnp.asarray(perturbed, jnp.float32)}

    def denoise(self, params, x, t, cond):
        colour = jnp.tanh(cond["text"]) @ params["colour"]
        colour = colour * (1.0 - cond["perturbed"][:, None])
        return 0.5 * x - colour[:, None, None, None, :]

    def decode_stream(self, latents, placement, batch=None):
        frames = np.repeat(np.repeat(latents, 8, axis=1), 8, axis=2)
        frames = np.concatenate([frames[:1], np.repeat(frames[1:], 2, axis=0)])
        yield (255 / (1 + np.exp(-frames))).astype(np.uint8)


register("poet", Poet)
# ---- end ----


def test_it_makes_a_video():
    story = {
        "global": "a red field",
        "negative": "rain",
        "events": [{"prompt": "dawn", "seconds": 3}, {"prompt": "dusk", "seconds": 2}],
    }
    model = family_named("poet")()
    pipeline = Pipeline(model)
    request = pipeline.prepare(Scenario.from_dict(story))
    assert request.summary.samples == 3 * request.summary.windows
    video = pipeline(request.scenario)
    assert video.frames.shape == (20, 16, 16, 3) and video.frames.std() > 0
    plain = CoDenoising(guidance=1.0, perturbed_guidance=0.0)
    other = pipeline(Scenario.from_dict(story), sampler=plain)
    assert np.abs(video.frames.astype(int) - other.frames.astype(int)).max() > 2
