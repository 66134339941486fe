"""Memory and time of converting Wan 2.1 T2V 1.3B from the files that people have.

    python benchmarks/conversion_wan.py            # all of them; needs 31 GB of disk
    python benchmarks/conversion_wan.py q8_0 fp8   # some

``comfy`` is the three files for ComfyUI (transformer and UMT5-XXL in float16, autoencoder in
bfloat16), ``fp8`` and ``q8_0`` are the transformer with scaled float8 and as GGUF. The files have
the published names, shapes and types, and random values. ``syncos convert`` runs in a process of
its own; its peak memory may be at most 1.2 times the largest file and 1 GiB. Then the converted
transformer, in float32 at a reduced number of tokens, is compared with diffusers' with the same
dequantised weights: at most 1e-4 apart, relative to the largest value.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from syncos_jax.bench import report
from syncos_jax.models import saved
from syncos_jax.models.weights import leaves
from syncos_jax.weights_convert import wan_tables

GIB = 2**30
RESULTS = Path(__file__).parent / "results" / "conversion_wan.json"
HEADER = ("source", "files", "largest", "seconds", "of CPU", "peak memory", "bound", "to diffusers")
TYPES = {"F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32}
TYPES["F8_E4M3"] = ml_dtypes.float8_e4m3fn
TRANSFORMER = {"num_layers": 30, "num_attention_heads": 12, "ffn_dim": 8960}
_BLOCK = np.random.default_rng(0).standard_normal(2**20, np.float32)
Shapes = dict[str, tuple[int, ...]]


def transformer_shapes() -> Shapes:
    """Names in Wan's own layout, and shapes."""
    import torch
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        held = WanTransformer3DModel(**TRANSFORMER).state_dict()
    own = {}
    for path in leaves(saved.build("transformer", _config(), np.float32)):
        key = wan_tables.TRANSFORMER.key(path)
        own[wan_tables.ORIGINAL_TRANSFORMER.key(path)] = tuple(held[key].shape)
    return own


def _config() -> Any:
    from syncos_jax.models.t5 import T5Config
    from syncos_jax.models.wan.config import WanTransformerConfig, WanVAEConfig
    from syncos_jax.models.wan.settings import WanConfig

    layers = int(TRANSFORMER["num_layers"])
    sizes = WanTransformerConfig(layers=layers), WanVAEConfig(), T5Config()  # else of the 1.3B
    return WanConfig("", *sizes, schedule={}, solver={})


def vae_shapes() -> Shapes:
    """Names in Wan's own layout, and shapes."""
    import torch
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        held = AutoencoderKLWan().state_dict()
    theirs, own = wan_tables.vae_table(), wan_tables.original_vae_table(_config().vae)
    paths = leaves(saved.build("vae", _config(), np.float32))
    return {own.key(path): tuple(held[theirs.key(path)].shape) for path in paths}


def text_shapes() -> Shapes:
    """Names in transformers' layout, and shapes."""
    import torch
    from transformers import UMT5Config, UMT5EncoderModel

    sizes = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24}
    sizes |= {"num_heads": 64, "feed_forward_proj": "gated-gelu"}
    with torch.device("meta"):
        held = UMT5EncoderModel(UMT5Config(**sizes)).state_dict()
    return {k: tuple(v.shape) for k, v in held.items() if k != "encoder.embed_tokens.weight"}


def values(number: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random values of a tensor, float32: matrices by their fan-in, norms about 1."""
    found = np.resize(np.roll(_BLOCK, 101 * number), math.prod(shape))
    if len(shape) > 1 and not key.endswith("modulation"):
        return (found * np.float32(0.8 * math.prod(shape[1:]) ** -0.5)).reshape(shape)
    found = found * np.float32(0.1)
    if re.search(r"norm\w*\.weight$|gamma$", key):
        found += 1
    return found.reshape(shape)


def write_safetensors(path: Path, shapes: Shapes, kind: str) -> None:
    """A safetensors file, tensor by tensor; of float8 only the matrices of blocks, with scales."""
    header: dict[str, Any] = {}
    offset = 0
    for key, shape in shapes.items():
        own = _kind(key, shape, kind)
        entries = {key: (own, shape)}
        if own == "F8_E4M3":
            entries[f"{key.removesuffix('weight')}scale_weight"] = ("F32", ())
        for name, (dtype, held) in entries.items():
            size = np.dtype(TYPES[dtype]).itemsize * math.prod(held)
            places = [offset, offset + size]
            header[name] = {"dtype": dtype, "shape": held, "data_offsets": places}
            offset += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number, (key, shape) in enumerate(shapes.items()):
            array, own = values(number, key, shape), _kind(key, shape, kind)
            scale = np.abs(array).max() / np.float32(448) if own == "F8_E4M3" else np.float32(1)
            (array / scale).astype(TYPES[own]).tofile(file)
            if own == "F8_E4M3":
                np.asarray(scale, np.float32).tofile(file)


def _kind(key: str, shape: tuple[int, ...], kind: str) -> str:
    quantised = kind == "F8_E4M3"
    return "F16" if quantised and not (len(shape) == 2 and key.startswith("blocks.")) else kind


def write_gguf(path: Path, shapes: Shapes) -> None:
    """A GGUF file of Q8_0, tensor by tensor; vectors and convolutions in float32."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "wan")
    q8, f32 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32
    kinds = {
        key: q8 if len(shape) == 2 and key.startswith("blocks.") else f32
        for key, shape in shapes.items()
    }
    for key, shape in shapes.items():
        if kinds[key] == q8:
            rows = gguf.quants.quant_shape_to_byte_shape(shape, q8)
            size = math.prod(rows)
            writer.add_tensor_info(key, rows, np.dtype(np.uint8), size, raw_dtype=q8)
        else:
            size = 4 * math.prod(shape)
            writer.add_tensor_info(key, shape, np.dtype(np.float32), size, raw_dtype=f32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, (key, shape) in enumerate(shapes.items()):
        array = values(number, key, shape)
        data = gguf.quants.quantize(array, q8) if kinds[key] == q8 else array
        writer.write_tensor_data(data)
    writer.close()


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of a few words: it is not what is measured."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁a", -2.0)]
    made = Tokenizer(models.Unigram(words, unk_id=2))
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=made, **tokens).save_pretrained(folder)


def sources(kind: str, folder: Path) -> tuple[list[Path], list[str]]:
    """Writes the files of a source; they, and the arguments that convert them."""
    transformer = folder / f"wan2.1_t2v_1.3B_{kind}.safetensors"
    if kind == "comfy":
        text, vae = folder / "umt5_xxl_fp16.safetensors", folder / "wan_2.1_vae.safetensors"
        write_safetensors(transformer, transformer_shapes(), "F16")
        write_safetensors(text, text_shapes(), "F16")
        write_safetensors(vae, vae_shapes(), "BF16")
        write_tokenizer(folder / "tokenizer")
        files = ["--transformer", transformer, "--text-encoder", text, "--vae", vae]
        named = [*map(str, files), "--tokenizer", str(folder / "tokenizer")]
        return [transformer, text, vae], named
    if kind == "fp8":
        write_safetensors(transformer, transformer_shapes(), "F8_E4M3")
    else:
        transformer = transformer.with_suffix(".gguf")
        write_gguf(transformer, transformer_shapes())
    return [transformer], [str(transformer), "--only", "transformer"]


# The peak of this process alone: what an exec replaced does not count.
CONVERT = """
import re, resource, sys
from syncos_jax.cli import main
try:
    main()
finally:
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print("MEASURED", usage.ru_utime + usage.ru_stime, int(peak) * 1024)
"""
OURS = """
import sys, jax.numpy as jnp, numpy as np
from syncos_jax import load_model
from syncos_jax.models import saved
from syncos_jax.pipeline.load import placement
from pathlib import Path
folder, given, out = map(Path, sys.argv[1:])
config, _ = saved.read_config(folder)
transformer = saved.read_network(folder, "transformer", config, "float32", placement(None))
data = np.load(given)
y = transformer(*(jnp.asarray(data[name]) for name in ("x", "t", "text")))
np.save(out, np.asarray(y))
"""
THEIRS = """
import json, sys, numpy as np, torch
from diffusers import WanTransformer3DModel
from pathlib import Path
from syncos_jax.weights_convert import wan_tables
from syncos_jax.weights_convert.weight_files import read_file
file, given, out, sizes = Path(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
with torch.device("meta"):
    model = WanTransformer3DModel(**sizes)
stored, state = read_file(file).tensors, {}
for name in model.state_dict():
    (target,) = wan_tables.TRANSFORMER.targets(name)
    own = np.asarray(stored[wan_tables.ORIGINAL_TRANSFORMER.key(target.path)], np.float32)
    state[name] = torch.from_numpy(own)
model.load_state_dict(state, assign=True)
# Not a parameter, so on "meta" still.
made = WanTransformer3DModel(**{**sizes, "num_layers": 1})
model.rope = made.rope
data = {name: torch.from_numpy(array) for name, array in np.load(given).items()}
x = data["x"].permute(0, 4, 1, 2, 3)
with torch.no_grad():
    y = model.eval()(x, data["t"], data["text"]).sample
np.save(out, y.permute(0, 2, 3, 4, 1).numpy())
"""


def difference(folder: Path, transformer: Path) -> float:
    """How far the converted transformer is from diffusers', relative to the largest value."""
    rng = np.random.default_rng(1)
    given = folder / "given.npz"
    x, text = rng.standard_normal((1, 3, 8, 8, 16)), rng.standard_normal((1, 16, 4096))
    t = np.asarray([700.0], np.float32)
    np.savez(given, x=x.astype(np.float32), t=t, text=text.astype(np.float32))
    ours, theirs = folder / "ours.npy", folder / "theirs.npy"
    run = [sys.executable, "-c", OURS, folder / "out", given, ours]
    subprocess.run(run, check=True)
    run = [sys.executable, "-c", THEIRS, transformer, given, theirs, json.dumps(TRANSFORMER)]
    subprocess.run(run, check=True)
    a, b = np.load(ours), np.load(theirs)
    return float(np.abs(a - b).max() / np.abs(b).max())


def measured(kind: str, folder: Path) -> dict[str, Any]:
    """Writes the files, converts them and compares."""
    files, arguments = sources(kind, folder)
    out = ["--out", str(folder / "out")]
    begin = time.monotonic()
    command = [sys.executable, "-c", CONVERT, "convert", *arguments, *out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begin
    if done.returncode:
        raise SystemExit(done.stderr)
    cpu, peak = map(float, done.stdout.split("MEASURED")[1].split())
    sizes = [path.stat().st_size for path in files]
    for path in files[1:]:
        path.unlink()
    size = f"largest file {max(sizes) / GIB:.2f} GiB"
    print(f"{kind}: {seconds:.0f} s, peak {peak / GIB:.2f} GiB, {size}", flush=True)
    return {
        "files": sum(sizes),
        "largest": max(sizes),
        "seconds": seconds,
        "cpu": cpu,
        "peak": peak,
        "bound": 1.2 * max(sizes) + GIB,
        "difference": difference(folder, files[0]),
        "date": time.strftime("%Y-%m-%d"),
    }


def rows(results: dict[str, dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """The lines of the table."""
    for kind, entry in results.items():
        size = {name: f"{entry[name] / GIB:.2f} GiB" for name in ("files", "largest", "peak")}
        yield (
            kind,
            size["files"],
            size["largest"],
            f"{entry['seconds']:.0f}",
            f"{entry['cpu']:.0f}",
            size["peak"],
            f"{entry['bound'] / GIB:.2f} GiB",
            f"{entry['difference']:.1e}",
        )


def main(given: list[str] | None = None) -> int:
    """The command; 1 where a bound is not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("comfy", "fp8", "q8_0")
    parser.add_argument("kinds", nargs="*", choices=[*kinds, []], help="default: all")
    parser.add_argument("--layers", type=int, default=30, help="that many, not all, of 30")
    parser.add_argument("--folder", help="where there is room; default: the temporary folder")
    options = parser.parse_args(given)
    TRANSFORMER["num_layers"] = options.layers
    title = "" if options.layers == 30 else f", {options.layers} of 30 layers"
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for kind in options.kinds or kinds:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            results[kind + title] = measured(kind, Path(folder))
        report.write_json(RESULTS, results)
        text = "# Conversion of Wan 2.1 T2V 1.3B\n\n`python benchmarks/conversion_wan.py`\n\n"
        text += report.markdown(HEADER, list(rows(results)))
        RESULTS.with_suffix(".md").write_text(text, encoding="utf-8")
        print(text, flush=True)
    wrong = [k for k, e in results.items() if e["peak"] > e["bound"] or e["difference"] > 1e-4]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
