"""What a file is that holds no weights that can be read, and what lies in a folder without any."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from syncos_jax.errors import InputError

HEAD = 512
"""Bytes that `what_it_is` looks at."""

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch the file"),
    (b"# xet version", "a Xet pointer, not the file itself; fetch the file"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"BZh", "a bzip2 archive; unpack it"),
    (b"\xfd7zXZ", "an xz archive; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"Rar!", "a rar archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it"),
    (b"\x89HDF", "an HDF5 file (TensorFlow); give the PyTorch weights of the model"),
    (b"\x93NUMPY", "a NumPy array; give the model as .safetensors or .ckpt"),
    (b"\x08\x07\x12", "an ONNX file; give the model as .safetensors or .ckpt"),
)
_PAGE = "a web page, saved in place of the file (behind a login, or moved); download it again"
_MESSAGE = "a server's message in place of the file ({}); download it again"


def what_it_is(head: bytes, size: int) -> str:
    """What a file of `size` bytes that begins with `head` is, and what to do; never empty."""
    if size == 0:
        return "empty; download it again"
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return what
    if head[257:262] == b"ustar" or head[257:263] == b"\x00" * 6 and _old_tar(head):
        if head.startswith((b"sys_info\x00", b"./sys_info\x00")):
            return (
                "in the tar format of PyTorch before 0.1.10; load it with PyTorch, and save its "
                "state_dict again"
            )
        return "a tar archive; unpack it"
    if b"/annex/objects/" in head[:200]:
        return "a git-annex pointer, not the file itself; run git annex get"
    if not head.strip(b"\x00"):
        return "nothing but zeros, as a download that was broken off leaves it; download it again"
    text = _as_text(head)
    if text is None:
        return "neither a safetensors file nor a torch checkpoint"
    if re.match(r"<(?:!doctype html|html|head|body)", text, re.IGNORECASE):
        return _PAGE
    if size <= HEAD or text.startswith(("<", "{")):
        return _MESSAGE.format(repr(" ".join(text.split())[:60]))
    return "a text file, not weights; give the weights themselves"


def _old_tar(head: bytes) -> bool:
    """Whether it is the header of a tar file of before 1988: a name, and numbers in octal."""
    named = re.match(rb"[!-~]+\x00+", head[:100])
    numbers = re.fullmatch(rb"[0-7 \x00]{24}", head[100:124])
    return bool(named and numbers) and not head[148:156].strip(b"\x00 01234567")


def _as_text(head: bytes) -> str | None:
    """The beginning of a text file; None for other files."""
    cut = head[: HEAD - 4] if len(head) >= HEAD else head  # not within a character
    try:
        text = cut.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if re.search(r"[\x00-\x08\x0e-\x1f]", text) else text.strip()


_UNFINISHED = (".part", ".partial", ".incomplete", ".crdownload", ".download", ".tmp", ".aria2")
_OTHERS = {
    "flax_model.msgpack": "Flax weights",
    "diffusion_flax_model.msgpack": "Flax weights",
    "tf_model.h5": "TensorFlow weights",
    "model.onnx": "ONNX weights",
    "openvino_model.bin": "OpenVINO weights",
    "adapter_model.safetensors": "a LoRA",
    "adapter_model.bin": "a LoRA",
    "pytorch_lora_weights.safetensors": "a LoRA",
}


def no_weights(folder: Path, names: Iterable[str]) -> InputError:
    """The error for a network's folder without weights, with what lies there in their place."""
    names = sorted(names)
    unfinished = [name for name in names if name.endswith(_UNFINISHED)]
    other = [name for name in names if name in _OTHERS]
    if unfinished:
        said = f" ({unfinished[0]} is a download that was not finished; download it again)"
    elif other:
        said = f" ({other[0]} is {_OTHERS[other[0]]}, which cannot be read alone)"
    else:
        weights = [name for name in names if name.endswith((".safetensors", ".bin", ".pt", ".pth"))]
        listed = ", ".join(weights[:8])
        said = f" (found {listed}; which of them is it?)" if weights else ""
    return InputError(
        f"{folder}: missing weights; expected diffusion_pytorch_model or model, .safetensors or "
        f".bin, or the .index.json of their shards{said}"
    )
