"""Published sampling settings of every Wan and CogVideoX, each with the file that states them."""

from pathlib import Path

import pytest

from syncos_jax.models.t5 import T5Config
from syncos_jax.models.wan.config import WanTransformerConfig, WanVAEConfig
from syncos_jax.weights_convert import cogvideox, cogvideox_config, wan, wan_config

BIG = WanTransformerConfig.wan_14b()
TI2V = WanTransformerConfig(in_channels=48, out_channels=48, heads=24, inner=14336)
MEAN, STD = wan_config.STATISTICS[48]
VAE_2_2 = WanVAEConfig(
    base=160, decoder_base=256, latent_channels=48, residual=True, patch=2, latents_mean=MEAN,
    latents_std=STD,
)  # fmt: skip


def on_pictures(**changes):
    return WanTransformerConfig(**{**vars(BIG), "in_channels": 36, **changes})


# Source, transformer, autoencoder, two experts; then: height, width, frames, fps, steps, shift,
# guidance (of the second expert too), boundary.
WAN = {
    "Wan2.1 generate.py, wan/configs/wan_t2v_1_3B.py": (
        (WanTransformerConfig(), WanVAEConfig(), False),
        (480, 832, 81, 16, 50, 3.0, (5.0, None), None),
    ),
    "Wan2.1 generate.py, wan/configs/wan_t2v_14B.py": (
        (BIG, WanVAEConfig(), False),
        (480, 832, 81, 16, 50, 3.0, (5.0, None), None),
    ),
    "Wan2.1 generate.py (i2v-14B at 480p), wan/configs/wan_i2v_14B.py": (
        (on_pictures(image_features=1280), WanVAEConfig(), False),
        (480, 832, 81, 16, 40, 3.0, (5.0, None), None),
    ),
    "Wan2.1 generate.py (flf2v-14B), wan/first_last_frame2video.py": (
        (on_pictures(image_features=1280, image_positions=514), WanVAEConfig(), False),
        (480, 832, 81, 16, 50, 16.0, (5.0, None), None),
    ),
    "Wan2.2 wan/configs/wan_t2v_A14B.py": (
        (BIG, WanVAEConfig(), True),
        (480, 832, 81, 16, 40, 12.0, (4.0, 3.0), 0.875),
    ),
    "Wan2.2 wan/configs/wan_i2v_A14B.py": (
        (on_pictures(), WanVAEConfig(), True),
        (480, 832, 81, 16, 40, 5.0, (3.5, 3.5), 0.9),
    ),
    "Wan2.2 wan/configs/wan_ti2v_5B.py": (
        (TI2V, VAE_2_2, False),
        (704, 1280, 121, 24, 50, 5.0, (5.0, None), None),
    ),
}


@pytest.mark.parametrize("source", WAN)
def test_wan(source):
    (transformer, vae, two), wanted = WAN[source]
    sizes = {"transformer": transformer, "vae": vae, "text": T5Config.umt5_xxl()}
    config = wan._config(Path("folder"), sizes, two, {})
    clip = config.geometry()
    assert wanted == (
        *(clip.height, clip.width, clip.frames(clip.window), clip.fps),
        *(config.steps, config.schedule["shift"], (config.guidance, config.guidance_2)),
        config.boundary,
    )
    assert config.clean_frames == (source == "Wan2.2 wan/configs/wan_ti2v_5B.py")


FIRST = {
    "_class_name": "CogVideoXTransformer3DModel",
    "num_attention_heads": 48,
    "num_layers": 42,
    "use_rotary_positional_embeddings": True,
}
SECOND = {
    **FIRST,
    "patch_size_t": 2,
    "patch_bias": False,
    "sample_frames": 81,
    "sample_height": 96,
    "sample_width": 170,
}
PICTURE = {"in_channels": 32, "out_channels": 16}
LEARNED = {"use_learned_positional_embeddings": True}
# Transformer's and autoencoder's settings, the schedule's; then: height, width, frames, fps, steps,
# guidance, scale of latents, of a picture's latents.
COGVIDEOX = {
    "CogVideo README, CogVideoX-2b scheduler/scheduler_config.json": (
        ({"_class_name": "CogVideoXTransformer3DModel"}, {"scaling_factor": 1.15258426}, 3.0),
        (480, 720, 49, 8, 50, 6.0, 1.15258426, 1.15258426),
    ),
    "CogVideo README, CogVideoX-5b": (
        (FIRST, {"scaling_factor": 0.7}, 1.0),
        (480, 720, 49, 8, 50, 6.0, 0.7, 0.7),
    ),
    "CogVideo sat/configs/cogvideox_5b_i2v.yaml": (
        ({**FIRST, **PICTURE, **LEARNED}, {"scaling_factor": 0.7}, 1.0),
        (480, 720, 49, 8, 50, 6.0, 0.7, 0.7),
    ),
    "CogVideo README, CogVideoX1.5-5B": (
        (SECOND, {"scaling_factor": 0.7}, 1.0),
        (768, 1360, 81, 16, 50, 6.0, 0.7, 0.7),
    ),
    "diffusers pipeline_cogvideox_image2video.py, CogVideoX1.5-5B-I2V": (
        (
            {**SECOND, **PICTURE, "ofs_embed_dim": 512},
            {"scaling_factor": 0.7, "invert_scale_latents": True},
            1.0,
        ),
        (768, 1360, 81, 16, 50, 6.0, 0.7, 1 / 0.7),
    ),
}


@pytest.mark.parametrize("source", COGVIDEOX)
def test_cogvideox(source):
    (transformer, vae, snr_shift), wanted = COGVIDEOX[source]
    sizes = {
        "transformer": cogvideox_config.transformer_config(transformer),
        "vae": cogvideox_config.vae_config({"_class_name": "AutoencoderKLCogVideoX", **vae}),
        "text_encoder": T5Config.t5_xxl(),
    }
    scheduler = {**cogvideox.SCHEDULER, "snr_shift_scale": snr_shift}
    config = cogvideox._config(Path("folder"), sizes, scheduler, {})
    clip = config.geometry()
    assert wanted[:-1] == (
        *(clip.height, clip.width, clip.frames(clip.window), clip.fps),
        *(config.steps, config.guidance, config.latent_scale),
    )
    assert config.image_scale == pytest.approx(wanted[-1])
    assert config.schedule["snr_shift"] == snr_shift
    assert config.on_images == ("in_channels" in transformer)
