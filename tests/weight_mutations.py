"""Damages files of weights of every layout, and looks at what becomes of them.

    python tests/weight_mutations.py                 # 1,000 of each layout
    python tests/weight_mutations.py --count 50 wan fp8

A tensor is renamed, removed, doubled, transposed or stored in another type. Each file is refused in
one line, or gives the network that its tensors say: what a reader of plain names finds (`wanted`).
Anything else is printed. Square matrices are not transposed, and what a LoRA may leave out
(a whole change) is not removed: no reader can tell.
"""

from __future__ import annotations

import argparse
import collections
import functools
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import weight_cases as cases
from safetensors.torch import save_file

from syncos_jax.errors import InputError
from syncos_jax.models import saved
from syncos_jax.models.weights import leaves
from syncos_jax.weights_convert.lora import open_lora
from syncos_jax.weights_convert.lora_targets import tables_for
from syncos_jax.weights_convert.sources import open_source
from syncos_jax.weights_convert.state_dict import Choice
from syncos_jax.weights_convert.table import arrays
from syncos_jax.weights_convert.write import plan_networks

Tensors = dict[str, torch.Tensor]
KINDS = ("renamed", "missing", "doubled", "transposed", "retyped")
TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn)
TYPES += (torch.int8, torch.int32, torch.bool)
NEW_NAMES = ("{}x", "x{}", "model.{}", "module.{}", "ema.{}", "{}.weight", "{}_orig", "other")


def mutated(tensors: Tensors, kind: str, rng: np.random.Generator) -> tuple[Tensors, str]:
    """The tensors after one mutation, and which was changed."""
    out, names = dict(tensors), list(tensors)
    key = names[rng.integers(len(names))]
    value = out[key]
    if kind == "renamed":
        del out[key]
        out[NEW_NAMES[rng.integers(len(NEW_NAMES))].format(key)] = value
    elif kind == "missing":
        del out[key]
    elif kind == "doubled":
        other = NEW_NAMES[rng.integers(len(NEW_NAMES))].format(key)
        if rng.random() < 0.3:
            other = names[rng.integers(len(names))]
        out[other] = (value.float() * 2).to(value.dtype)
    elif kind == "transposed":
        axes = [int(a) for a in rng.permutation(value.ndim)]
        out[key] = value.permute(axes).contiguous()
    else:
        dtype = TYPES[rng.integers(len(TYPES))]
        out[key] = value.float().clamp(-448, 448).to(dtype)
    return out, key


def safetensors_file(tensors: Tensors, path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, path)
    return path


def torch_file(tensors: Tensors, path: Path) -> Path:
    path = path.with_suffix(".ckpt")
    torch.save({"state_dict": tensors}, path)
    return path


def gguf_file(tensors: Tensors, path: Path) -> Path:
    """Matrices of blocks as Q8_0, where the type has not been changed."""
    path = path.with_suffix(".gguf")
    writer = gguf.GGUFWriter(str(path), "wan")
    q8 = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float32 and tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            data = gguf.quants.quantize(tensor.numpy(), q8)
            writer.add_tensor(name, data, raw_dtype=q8)
        elif tensor.dtype in (torch.float16, torch.float64, torch.int8, torch.int32):
            writer.add_tensor(name, tensor.numpy())
        else:
            writer.add_tensor(name, tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read(path: Path, network: str | None) -> tuple[dict[str, np.ndarray], int]:
    """What would be written, by path, and the number of warnings."""
    opened = open_source(str(path), None, [], Choice(network=network), name="m")
    found: dict[str, np.ndarray] = {}
    for name, part in plan_networks(opened, None).items():
        for _, target, array in arrays(part.plan, part.read):
            found[f"{name}.{target}"] = np.asarray(array, np.float32)
    return found, len(opened.warnings)


def read_lora(path: Path, network: str | None) -> tuple[dict[str, np.ndarray], int]:
    """As `read`, of a LoRA for the tiny transformer."""
    del network
    config = _config()
    expected = leaves(saved.build("transformer", config, np.float32))
    lora = open_lora(path, 1.0, expected, tables_for(config, "transformer"))
    found = {name: change.array() for name, change in lora.changes.items()}
    return found, len(lora.skipped) + len(lora.warnings)


@functools.cache
def _config() -> Any:
    from syncos_jax.models.t5 import T5Config
    from syncos_jax.models.wan.config import WanVAEConfig
    from syncos_jax.models.wan.settings import WanConfig
    from syncos_jax.weights_convert.wan_config import transformer_config_of

    state = cases.transformer().state_dict()
    held = {k: np.asarray(v) for k, v in state.items()}
    sizes = transformer_config_of(held, "tiny"), WanVAEConfig(), T5Config()
    return WanConfig("", *sizes, schedule={}, solver={})


def lora(kind: str) -> Tensors:
    """A LoRA of a few layers."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / 4

    out: Tensors = {}
    for layer in ("self_attn.q", "cross_attn.o", "ffn.0"):
        rows = 64 if layer == "ffn.0" else 128
        name = f"blocks.1.{layer}"
        flat = "lora_unet_" + name.replace(".", "_")
        if kind == "kohya":
            out |= {f"{flat}.lora_down.weight": random(4, 128), f"{flat}.alpha": torch.tensor(2.0)}
            out[f"{flat}.lora_up.weight"] = random(rows, 4)
        elif kind == "peft":
            out[f"diffusion_model.{name}.lora_A.weight"] = random(4, 128)
            out[f"diffusion_model.{name}.lora_B.weight"] = random(rows, 4)
        elif kind == "loha":
            for n in "12":
                out[f"{flat}.hada_w{n}_a"] = random(rows, 4)
                out[f"{flat}.hada_w{n}_b"] = random(4, 128)
            out[f"{flat}.alpha"] = torch.tensor(2.0)
        else:
            out[f"{flat}.lokr_w1"] = random(4, 8)
            out[f"{flat}.lokr_w2_a"] = random(rows // 4, 2)
            out[f"{flat}.lokr_w2_b"] = random(2, 16)
            out[f"{flat}.alpha"] = torch.tensor(2.0)
    return out


def checkpoint() -> Tensors:
    """VideoCrafter's, tiny."""
    from checkpoints import weights

    parts = {"unet_tiny": "model.diffusion_model.", "vae_tiny": "first_stage_model."}
    return {
        prefix + key: torch.from_numpy(value)
        for name, prefix in parts.items()
        for key, value in weights(name).items()
    }


Layout = tuple[Callable[[], Tensors], Callable[[Tensors, Path], Path], str | None, Any]
LAYOUTS: Mapping[str, Layout] = {
    "wan": (
        lambda: cases.own_transformer(cases.transformer()),
        safetensors_file,
        "transformer",
        read,
    ),
    "wan_pth": (
        lambda: cases.own_transformer(cases.transformer()),
        torch_file,
        "transformer",
        read,
    ),
    "wan_diffusers": (
        lambda: dict(cases.transformer().state_dict()),
        safetensors_file,
        "transformer",
        read,
    ),
    "fp8_scaled": (
        lambda: cases.scaled(cases.own_transformer(cases.transformer())),
        safetensors_file,
        "transformer",
        read,
    ),
    "gguf": (
        lambda: cases.own_transformer(cases.transformer()),
        gguf_file,
        "transformer",
        read,
    ),
    "wan_vae": (lambda: cases.own_vae(cases.autoencoder()), safetensors_file, "vae", read),
    "wan_vae22": (
        lambda: cases.own_vae_22(cases.autoencoder_22()),
        safetensors_file,
        "vae",
        read,
    ),
    "umt5": (
        lambda: cases.comfy_text(cases.text_encoder()),
        safetensors_file,
        "text_encoder",
        read,
    ),
    "umt5_own": (
        lambda: cases.own_text(cases.text_encoder()),
        safetensors_file,
        "text_encoder",
        read,
    ),
    **{
        f"lora_{kind}": ((lambda kind=kind: lora(kind)), safetensors_file, None, read_lora)
        for kind in ("kohya", "peft", "loha", "lokr")
    },
}


@functools.cache
def built(layout: str) -> Tensors:
    """The whole tensors of a layout."""
    return LAYOUTS[layout][0]()


def expected(before: Tensors, after: Tensors, key: str, kind: str, write: Any) -> bool:
    """Whether a mutation changes nothing that a reader could tell."""
    value = before[key]
    if kind == "retyped" and write is gguf_file and after[key].dtype == torch.bool:
        return True  # GGUF has no such type: other numbers are stored
    if kind == "missing" and key.startswith("encoder.block.1.") and "relative_attention" in key:
        return True  # of two layers the first alone has positions: that is T5
    if kind == "transposed":
        return after[key].shape == value.shape
    return kind == "doubled" and len(after) == len(before)  # another tensor was overwritten


def outcome(
    layout: str, kind: str, rng: np.random.Generator, folder: Path, whole: Mapping[str, Any]
) -> str:
    """What became of one mutation: refused, same, said, blind; anything else is a fault."""
    _, write, network, reader = LAYOUTS[layout]
    before = built(layout)
    after, key = mutated(before, kind, rng)
    if expected(before, after, key, kind, write):
        return "blind"
    try:
        found, warnings = reader(write(after, folder / "m"), network)
    except InputError as error:
        text = str(error)
        return "refused" if text and "\n" not in text else f"{kind} {key}: not one line: {text!r}"
    except Exception as error:
        return f"{kind} {key}: {type(error).__name__}: {error}"
    if warnings:
        return "said"
    within = 0.08 if kind == "retyped" else 0.01  # what 8 bits round to; GGUF quantises all
    same = found.keys() == whole.keys() and all(
        np.abs(found[path] - whole[path]).max() <= within * np.abs(whole[path]).max()
        for path in whole
    )
    if same:
        return "same"
    new = next((name for name in after if name not in before), "")
    return f"{kind} {key} {new} {after[key].dtype if key in after else ''}: differs in silence"


def play(layout: str, count: int, seed: int = 0) -> tuple[collections.Counter[str], list[str]]:
    """Outcomes of `count` mutations of a layout, and its faults."""
    _, write, network, reader = LAYOUTS[layout]
    rng = np.random.default_rng(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    faults = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, _ = reader(write(built(layout), folder / "whole"), network)
        for number in range(count):
            said = outcome(layout, KINDS[number % len(KINDS)], rng, folder, whole)
            outcomes[said if " " not in said else "fault"] += 1
            if " " in said:
                faults.append(said)
    return outcomes, faults


def main() -> int:
    """The command; 1 where there are faults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layouts", nargs="*", help=f"of {', '.join(LAYOUTS)}; default: all")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bad = 0
    for layout in options.layouts or LAYOUTS:
        outcomes, faults = play(layout, options.count, options.seed)
        print(f"{layout}: {dict(outcomes)}", flush=True)
        for fault in dict.fromkeys(faults):
            print(f"  {fault}", flush=True)
        bad += len(faults)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
