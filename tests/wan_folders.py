"""A tiny Wan in diffusers' layout, with random weights and a tokenizer of a few words."""

import dataclasses
from pathlib import Path

import torch
from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline
from test_wan_transformer import CONFIG as TRANSFORMER
from test_wan_transformer import torch_transformer
from test_wan_vae import CONFIG as VAE
from test_wan_vae import WAN_2_2, torch_vae
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

WORDS = ("a", "cat", "in", "kitchen", "sleeps", "wakes", "up", "drinks", "milk", "rain")
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
VAE_CONFIG = dataclasses.replace(
    VAE, latents_mean=(0.3, -0.2, 0.1, 0.0), latents_std=(1.5, 0.8, 1.2, 2.0)
)


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0)]
    vocabulary += [(f"▁{word}", -2.0) for word in WORDS]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def text_encoder(seed: int = 0) -> UMT5EncoderModel:
    torch.manual_seed(seed)
    config = UMT5Config(
        vocab_size=20,
        d_model=TRANSFORMER.text_features,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=3,
        dense_act_fn="gelu_new",
        feed_forward_proj="gated-gelu",
    )
    model = UMT5EncoderModel(config)
    for p in model.parameters():
        if p.ndim > 1:
            p.data = torch.randn(p.shape) / p.shape[-1] ** 0.5
    return model.eval()


def tiny_pipeline(scheduler=None, two: bool = False) -> WanPipeline:
    """`two`: as Wan2.2-A14B, with a second transformer."""
    second = torch_transformer(TRANSFORMER) if two else None
    if second is not None:
        with torch.no_grad():
            for p in second.parameters():
                p *= 1.1
    return WanPipeline(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=torch_vae(VAE_CONFIG),
        scheduler=scheduler or UniPCMultistepScheduler(**FLOW),
        transformer=torch_transformer(TRANSFORMER),
        transformer_2=second,
        boundary_ratio=0.875 if two else None,
    )


def image_encoder() -> CLIPVisionModel:
    """A CLIP of 9 patches and a token, with random weights."""
    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=12,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=3,
        image_size=18,
        patch_size=6,
        hidden_act="gelu",
    )
    model = CLIPVisionModel(config)
    for p in model.parameters():
        p.data = torch.randn(p.shape) * 0.3 + (1.0 if p.ndim == 1 else 0.0)
    return model.eval()


def image_pipeline(kind: str) -> WanImageToVideoPipeline:
    """As Wan 2.1 I2V ("clip"), FLF2V ("first and last"), Wan 2.2 I2V-A14B ("two") or TI2V-5B
    ("clean")."""
    vae, two = VAE_CONFIG, kind == "two"
    sizes = dataclasses.replace(TRANSFORMER, layers=1, in_channels=10)
    seen = kind in ("clip", "first and last")
    if seen:
        positions = 20 if kind == "first and last" else None
        sizes = dataclasses.replace(sizes, image_features=12, image_positions=positions)
    if kind == "clean":
        sizes = dataclasses.replace(sizes, in_channels=4)
        statistics = {name: getattr(vae, name) for name in ("latents_mean", "latents_std")}
        vae = dataclasses.replace(WAN_2_2, **statistics)
    second = torch_transformer(sizes) if two else None
    if second is not None:
        with torch.no_grad():
            for p in second.parameters():
                p *= 1.1
    crop = {"height": 18, "width": 18}
    processor = CLIPImageProcessor(size={"shortest_edge": 18}, crop_size=crop)
    made = WanImageToVideoPipeline(
        tokenizer=tokenizer(),
        text_encoder=text_encoder(),
        vae=torch_vae(vae),
        scheduler=UniPCMultistepScheduler(**FLOW),
        transformer=torch_transformer(sizes),
        transformer_2=second,
        image_encoder=image_encoder() if seen else None,
        image_processor=processor if seen else None,
        boundary_ratio=0.9 if two else None,
        expand_timesteps=kind == "clean",
    )
    made.set_progress_bar_config(disable=True)
    return made


def save(folder: Path, pipeline: WanPipeline, **how) -> Path:
    pipeline.save_pretrained(folder, **how)
    return folder
