"""Weights in other clothes: types, whole objects, other programs' files, pointers, odd folders."""

import io
import json
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_real_files import NAMES, is_state, known, opened, pipeline_folder, read, state
from weight_cases import own_transformer, transformer

from syncos_jax.errors import InputError
from syncos_jax.weights_convert.state_dict import Choice, unwrapped
from syncos_jax.weights_convert.weight_files import open_file, open_folder
from syncos_jax.weights_convert.write import kept_dtype

__all__ = ["pipeline_folder"]


def tar_of(name, content=b"x"):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


STRANGE = {
    "empty": (b"", "is empty; download it again"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\r\noid sha256:ab\n", "Git LFS pointer"),
    "annex": (b"/annex/objects/SHA256E-s12--ab.safetensors\n", "git annex get"),
    "annex by link": (b"../.git/annex/objects/aa/bb/SHA256E-s1--c/SHA256E-s1--c", "git annex get"),
    "xet": (b"# xet version 0\nfilesize = 3\n", "Xet pointer"),
    "page": (b"\xef\xbb\xbf\n<!DOCTYPE HTML>\n<html>" + b" " * 900, "a web page, saved in place"),
    "json": (b'{"error":"Repository not found"}', "a server's message .*Repository not found"),
    "xml": (b"<?xml version='1.0'?><Code>AccessDenied</Code>", "a server's message"),
    "refused": (b"Access to model x is restricted.", "a server's message"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "text": ("höhe, breite\n".encode() * 99, "is a text file"),
    "gguf": (b"GGUF\x03\0\0\0" + b"\xff" * 99, "damaged or truncated GGUF file"),
    "gzip": (b"\x1f\x8b\x08" + bytes(99), "gzip archive; unpack it"),
    "tar": (tar_of("model.ckpt"), "tar archive; unpack it"),
    "old torch": (tar_of("sys_info"), "tar format of PyTorch before 0.1.10"),
    "hdf": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "numpy": (b"\x93NUMPY\x01\0" + bytes(99), "NumPy array"),
    "noise": (bytes(range(1, 256)), "neither a safetensors file nor a torch checkpoint"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, name):
    content, message = STRANGE[name]
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        open_file(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_float8(tmp_path, kind, suffix):
    content = {name: tensor.to(kind) for name, tensor in state().items()}
    path = tmp_path / f"model.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(content, path)
    found = open_folder(tmp_path)
    for name, tensor in content.items():
        np.testing.assert_array_equal(np.asarray(found[name], np.float32), tensor.float().numpy())
        kept = np.asarray(found[name]).astype(kept_dtype(found[name].dtype))
        np.testing.assert_array_equal(kept.astype(np.float32), tensor.float().numpy())
        assert kept.itemsize == 2


QUANTISED = ["a.weight.absmax", "a.SCB", "a.qweight", "a.weight.quant_state.bitsandbytes__nf4"]


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_weights_are_refused_as_such(tmp_path, name):
    save_file({**state(), name: torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(
        InputError, match=f"quantised in a format that is not supported .tensor {name}"
    ):
        open_folder(tmp_path)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.a(x)


def sparse():
    return {name: tensor.to_sparse() for name, tensor in state().items()}


OBJECTS = {
    "module": (Net, "whole (object|module)"),
    "sparse": (sparse, "sparse tensors, which are not read"),
    "no data": (lambda: {"a.b": torch.zeros(2, device="meta")}, "on the meta device"),
    "complex": (lambda: {"a.b": torch.zeros(2, dtype=torch.complex64)}, "of type ComplexFloat"),
    "list": (lambda: [state()], "holds a list, not named tensors"),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_no_state_dict_is_named(tmp_path, name, zipped):
    made, message = OBJECTS[name]
    torch.save(made(), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=message):
        open_file(tmp_path / "a.pt")


def test_a_program_of_torchscript_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"a/{name}", pickle.dumps({}))
    with pytest.raises(InputError, match=r"TorchScript program; load it with torch\.jit\.load"):
        open_file(tmp_path / "a.pt")


def repacked(source, target, how, root="a/"):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", how) as new:
        for info in old.infolist():
            new.writestr(root + info.filename.partition("/")[2], old.read(info))
    return target


def test_archives_that_were_packed_again(tmp_path):
    torch.save(state(), tmp_path / "a.pt")
    is_state(open_file(repacked(tmp_path / "a.pt", tmp_path / "b.pt", zipfile.ZIP_STORED, root="")))
    with pytest.raises(InputError, match="tensors are compressed"):
        open_file(repacked(tmp_path / "a.pt", tmp_path / "b.pt", zipfile.ZIP_DEFLATED))


def test_a_name_that_the_table_knows_with_its_first_part_and_without(tmp_path):
    def either(name):
        return known(name.removeprefix("text_model."))

    path = tmp_path / "a.pt"
    torch.save(state("module.text_model."), path)
    found, said = unwrapped(open_file(path), either, "a.pt", Choice())
    assert set(found) == {f"text_model.{name}" for name in NAMES} and "module taken off 3" in said


def test_the_file_that_was_given_is_read(tmp_path, pipeline_folder):
    folder = tmp_path / "text_encoder"
    shutil.copytree(pipeline_folder / "text_encoder", folder)
    whole = open_file(folder / "model.safetensors")
    other = {name: torch.zeros(*tensor.shape) for name, tensor in whole.items()}
    torch.save(other, folder / "epoch3.pt")
    for name, largest in (("epoch3.pt", False), ("model.safetensors", True)):
        part = opened(folder / name, network="text_encoder").parts["text_encoder"]
        assert any(np.asarray(tensor).any() for tensor in part.tensors.values()) == largest
    (folder / "model.safetensors").unlink()
    part = opened(folder, network="text_encoder").parts["text_encoder"]
    assert set(part.tensors) == set(whole)


def test_shards_without_their_index(tmp_path):
    halves = [dict(list(state().items())[:1]), dict(list(state().items())[1:])]
    for number, half in enumerate(halves, 1):
        save_file(half, tmp_path / f"model-0000{number}-of-00002.safetensors")
    is_state(open_folder(tmp_path))
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="not all of them: model-00002"):
        open_folder(tmp_path)


FOLDERS = {
    "model.safetensors.incomplete": "is a download that was not finished",
    "flax_model.msgpack": "is Flax weights",
    "adapter_model.safetensors": "is a LoRA",
    "optimizer.bin": "which of them is it",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_without_weights_says_what_lies_there(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=f"missing weights; .*{FOLDERS[name]}"):
        open_folder(tmp_path)


def test_checkpoints_of_trainers(tmp_path):
    torch.save({"state_dict": state()}, tmp_path / "model_best.pth.tar")
    is_state(open_file(tmp_path / "model_best.pth.tar"))
    torch.save({"state_dict": own_transformer(transformer())}, tmp_path / "last.pth.tar")
    assert list(opened(tmp_path / "last.pth.tar", network="transformer").parts) == ["transformer"]
    (tmp_path / "a.tar").write_bytes(tar_of("a"))
    with pytest.raises(InputError, match="is an archive; unpack it"):
        opened(tmp_path / "a.tar")
    for name, message in ((".metadata", "dcp_to_torch"), ("zero_to_fp32.py", "DeepSpeed")):
        folder = tmp_path / f"of {name}"
        folder.mkdir()
        (folder / name).write_bytes(b"x")
        with pytest.raises(InputError, match=message):
            opened(folder)


def test_links_that_lead_nowhere_or_in_a_circle(tmp_path):
    for name in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / name).symlink_to(name)
        with pytest.raises(InputError, match="cannot be read: "):
            open_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to("nowhere")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        open_folder(tmp_path)


def test_names_with_spaces_and_signs(tmp_path):
    folder = tmp_path / "Pfad mit Leerzeichen ✨ \u0301e"
    folder.mkdir()
    is_state(read(folder / "ä b.pt", state()))
    save_file(state(), folder / "diffusion_pytorch_model.safetensors")
    is_state(open_folder(folder))


def test_an_index_that_points_outside(tmp_path):
    for name in ("../a.safetensors", "/etc/passwd", "a/b.safetensors"):
        index = {"metadata": {}, "weight_map": {"a": name}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(InputError, match="outside its folder"):
            open_folder(tmp_path)
