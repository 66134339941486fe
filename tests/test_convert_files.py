"""Reading checkpoint files: torch's format without torch, safetensors, shards."""

import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from syncos_jax.errors import InputError
from syncos_jax.weights_convert import torch_file
from syncos_jax.weights_convert.weight_files import find_weights, open_file, open_folder


def tensors():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=generator)
    return OrderedDict(
        plain=base.clone(),
        half=base.half(),
        bfloat=base.bfloat16(),
        double=base.double(),
        integer=torch.arange(5),
        flag=torch.tensor([True, False]),
        scalar=torch.tensor(3.5),
        empty=torch.zeros(0, 4),
        transposed=base.t(),
        part=base[1:4, ::3],
        parameter=torch.nn.Parameter(base + 1),
    )


def equals(found, expected):
    assert list(found) == list(expected)
    for key, tensor in expected.items():
        array = np.asarray(found[key])
        bits = tensor.detach().contiguous()
        if tensor.dtype == torch.bfloat16:
            assert array.dtype == ml_dtypes.bfloat16
            array, bits = array.astype(np.float32), bits.float()
        assert found[key].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(array, bits.numpy())


LAYOUTS = {
    "flat": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "lr": [0.1], "name": None},
    "deepspeed": lambda state: {"module": {f"_forward_module.{k}": v for k, v in state.items()}},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_torch(tmp_path, layout, zipped):
    path = tmp_path / "model.ckpt"
    content = LAYOUTS[layout](tensors())
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    equals(open_file(path), tensors())


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickle_protocols(tmp_path, protocol):
    torch.save({"state_dict": tensors()}, tmp_path / "a.pt", pickle_protocol=protocol)
    equals(open_file(tmp_path / "a.pt"), tensors())


def test_safetensors(tmp_path):
    given = {key: value.detach().contiguous() for key, value in sorted(tensors().items())}
    save_file(given, tmp_path / "a.safetensors")
    found = open_file(tmp_path / "a.safetensors")
    equals({key: found[key] for key in given}, given)


def test_a_tensor_is_read_when_it_is_asked_for(tmp_path):
    torch.save(tensors(), tmp_path / "a.ckpt")
    found = open_file(tmp_path / "a.ckpt")
    os.truncate(tmp_path / "a.ckpt", 1000)
    with pytest.raises(InputError, match="ends within a tensor; it is truncated"):
        np.asarray(found["plain"])


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("function", "argument"),
    [(os.system, "touch executed"), (eval, "open('executed', 'w')"), (getattr, "x")],
)
def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch, function, argument, zipped):
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": tensors(), "callbacks": Evil(function, argument)}
    torch.save(content, "a.ckpt", _use_new_zipfile_serialization=zipped)
    name = f"{function.__module__}.{function.__name__}"
    with pytest.raises(InputError, match="refused, because its pickle names") as error:
        open_file(tmp_path / "a.ckpt")
    assert name in str(error.value) and not os.path.exists("executed")


def test_a_bare_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.bin").write_bytes(pickle.dumps(Evil(os.system, "touch executed")))
    with pytest.raises(InputError, match="refused, because its pickle names posix.system"):
        open_file(tmp_path / "a.bin")
    assert not os.path.exists("executed")


def test_bookkeeping_of_a_trainer_is_passed_over(tmp_path, monkeypatch):
    """Names from training frameworks and numpy's numbers become placeholders."""
    package = types.ModuleType("pytorch_lightning.callbacks")
    kind = type("Checkpoint", (dict,), {"__module__": package.__name__})
    package.Checkpoint = kind
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    content = {
        "state_dict": tensors(),
        "callbacks": {kind: kind(best=np.float32(3.5), scores=np.arange(3), more={1, 2})},
    }
    torch.save(content, tmp_path / "a.ckpt")
    monkeypatch.undo()
    equals(open_file(tmp_path / "a.ckpt"), tensors())


def rewritten(path, change):
    """The zip archive with its pickle changed."""
    source = zipfile.ZipFile(path)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for info in source.infolist():
            data = source.read(info)
            archive.writestr(info.filename, change(data) if "data.pkl" in info.filename else data)
    path.write_bytes(target.getvalue())


def test_a_tensor_larger_than_its_storage(tmp_path):
    torch.save({"x": torch.zeros(3, 5)}, tmp_path / "a.ckpt")
    rewritten(tmp_path / "a.ckpt", lambda data: data.replace(b"K\x03K\x05", b"K\x63K\x05"))
    with pytest.raises(InputError, match="larger than its storage"):
        open_file(tmp_path / "a.ckpt")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torch_files_cut_anywhere(tmp_path, zipped):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": tensors()}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for size in [*range(0, 40), *range(40, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            open_file(path)


@pytest.mark.parametrize("zipped", [False, True])
def test_the_limit_of_memo_places(tmp_path, monkeypatch, zipped):
    """The unpickler's memo has as many entries as its highest index, so indices are bounded. A
    low limit here, and an index just past it."""
    monkeypatch.setattr(torch_file, "_MAX_MEMO", 1000)
    path = tmp_path / "a.pt"
    torch.save(tensors(), path, _use_new_zipfile_serialization=zipped)
    far = b"r" + struct.pack("<I", 1001)  # LONG_BINPUT
    if zipped:
        rewritten(path, lambda data: data[:-1] + far + data[-1:])
    else:
        data = path.read_bytes()
        path.write_bytes(data.replace(b"q\x00", far, 1))
    with pytest.raises(InputError, match="damaged or truncated: place 1001 of its memo"):
        open_file(path)


def test_damaged_pickles_never_do_more_than_fail(tmp_path):
    path = tmp_path / "a.ckpt"
    rng = np.random.default_rng(0)
    for _ in range(150):
        torch.save({"state_dict": tensors()}, path)

        def damage(data):
            data = bytearray(data)
            for _ in range(3):
                data[rng.integers(len(data))] = rng.integers(256)
            return bytes(data)

        rewritten(path, damage)
        try:
            for tensor in open_file(path).values():
                np.asarray(tensor)
        except InputError:
            pass


def header(value, tail=b""):
    text = json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + tail


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD = {
    "empty": (b"", "is empty; download it again"),
    "text": (b"hello, this is a text file", "a server's message in place of the file"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "short header": (struct.pack("<Q", 999) + b"{}", "truncated"),
    "not JSON": (struct.pack("<Q", 4) + b"{xx}", "header cannot be read"),
    "short data": (header({"a": ENTRY}, b"1234"), "it is truncated"),
    "long data": (header({"a": ENTRY}, b"123456789"), "has something appended"),
    "other size": (header({"a": {**ENTRY, "shape": [3]}}, b"12345678"), "8 bytes for a tensor"),
    "float8": (header({"a": {**ENTRY, "dtype": "F8_E4M3"}}, b"12345678"), "8 bytes for a tensor"),
    "float4": (header({"a": {**ENTRY, "dtype": "F4"}}, b"12345678"), "F4"),
    "negative": (header({"a": {**ENTRY, "shape": [-2]}}, b"12345678"), "negative"),
    "a zip": (b"PK\x03\x04 but no archive", "damaged or truncated"),
    "a pickle": (pickle.dumps({"a": 1}), "a pickle, but not a torch checkpoint"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name):
    content, message = BAD[name]
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_file(tmp_path / "file")


def test_no_tensors(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"no tensors by name \(but epoch\)"):
        open_file(tmp_path / "a.ckpt")
    torch.save([torch.zeros(3)], tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="holds a list, not named tensors"):
        open_file(tmp_path / "a.ckpt")


def test_which_weights_are_read():
    name = "diffusion_pytorch_model"
    names = [
        f"{name}.bin",
        f"{name}.fp16.safetensors",
        f"{name}.safetensors.index.json",
        f"{name}-00001-of-00002.safetensors",
    ]
    assert find_weights(names) == f"{name}.safetensors.index.json"
    assert find_weights([*names, f"{name}.safetensors"]) == f"{name}.safetensors"
    assert find_weights(names[:2]) == f"{name}.bin"
    assert find_weights(names[1:2]) == f"{name}.fp16.safetensors"
    index = f"{name}.safetensors.index.fp16.json"
    assert find_weights(["config.json", index]) == index
    assert find_weights(["pytorch_model.bin", "flax_model.msgpack"]) == "pytorch_model.bin"
    assert find_weights(["optimizer.bin"]) is None


def test_shards(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "model-00001-of-00002.bin")
    torch.save({"b": torch.ones(2)}, tmp_path / "model-00002-of-00002.bin")
    index = tmp_path / "model.bin.index.json"

    def write(**placed):
        index.write_text(json.dumps({"weight_map": placed}))

    first, second = "model-00001-of-00002.bin", "model-00002-of-00002.bin"
    write(a=first, b=second)
    assert sorted(open_folder(tmp_path)) == ["a", "b"]
    write(a=first, b=second, c=second)
    with pytest.raises(InputError, match=f"{second} lacks c"):
        open_folder(tmp_path)
    write(a=first)
    assert list(open_folder(tmp_path)) == ["a"]
    write(a=first, b="model-00003-of-00003.bin")
    with pytest.raises(InputError, match="missing shards: model-00003"):
        open_folder(tmp_path)
    write(a=first, b="../model.bin")
    with pytest.raises(InputError, match="names files outside its folder"):
        open_folder(tmp_path)
    index.write_text("{}")
    with pytest.raises(InputError, match="cannot be read as an index"):
        open_folder(tmp_path)
    torch.save({"a": torch.zeros(2), "z": torch.zeros(1)}, tmp_path / first)
    write(a=first, b=second)
    with pytest.raises(InputError, match=f"{first} has z, the index does not"):
        open_folder(tmp_path)
