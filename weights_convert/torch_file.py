"""Checkpoints in torch's own format, read without torch and without executing what they hold.

A torch checkpoint is a pickle that refers to raw storages, in a zip archive (since torch 1.6) or
one after the other in a plain file (before). A pickle may name any function to be called. Here
only the few names that describe tensors are followed, and nothing is ever imported. What stands
beside the weights (the arguments of a script, a path, a date, objects of a training framework)
becomes an inert placeholder; a name that the pickle wants to be *called*, other than those of
known plain values, is refused.
"""

from __future__ import annotations

import dataclasses
import pickle
import pickletools
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.weights_convert import pickle_names as names
from syncos_jax.weights_convert.stored import LazyTensor

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number
_MAX_PICKLE = 256_000_000
_MAX_NAMES = 1_000
_MAX_MEMO = 10_000_000
"""Places of a pickle's memo, which is allocated as long as the farthest of them says."""


def recognises(head: bytes) -> bool:
    """Whether a file that begins with `head` is in torch's format, or another pickle."""
    return head.startswith(_ZIP) or head[:1] == b"\x80"


def read(path: Path) -> Any:
    """What a checkpoint holds: plain values as they are, tensors as `LazyTensor`, the rest inert.

    Raises:
        InputError: damaged, truncated, of an unknown layout, or a pickle that would run code.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_LEGACY))
            file.seek(0)
            if head.startswith(_ZIP):
                content = _read_zip(path, file)
            elif head == _LEGACY:
                content = _read_legacy(path, file)
            else:
                # Refused for what it names, or for being no checkpoint.
                _Unpickler(file, path, _no_storage).load()
                raise InputError(f"{path}: is a pickle, but not a torch checkpoint")
    except InputError:
        raise
    except _Refused as error:
        raise InputError(
            f"{path}: refused, because its pickle names {error}, which could run code; only "
            "tensors are read. If you trust its author, load it there and save its state_dict as "
            "safetensors"
        ) from error
    except _Unreadable as error:
        raise InputError(f"{path}: {error}") from error
    except (zipfile.BadZipFile, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: damaged or truncated: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise InputError(
            f"{path}: damaged: its pickle cannot be read ({type(error).__name__}: {error})"
        ) from error
    return content


class _Inert:
    """Takes the place of an object that is of no interest; accepts all that a pickle does to it."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def append(self, _item: Any) -> None:
        """What APPEND calls."""

    def extend(self, _items: Any) -> None:
        """What APPENDS calls."""

    def add(self, _item: Any) -> None:
        """What ADDITEMS calls."""


class _Named(type):
    """The class of placeholders for one name: an object of it may be made, a call is refused.

    Objects of plain classes are pickled as ``cls.__new__(cls)`` and their attributes, which does
    not pass here; functions, and classes with other ways, are called.
    """

    def __call__(cls, *_args: Any, **_kwargs: Any) -> Any:
        raise _Refused(cls.__name__)


class _Refused(Exception):
    """A pickle asks to call a name."""


class _Unreadable(Exception):
    """A checkpoint holds something that is not read, and is not damaged."""


def _unreadable(what: str) -> Callable[..., Any]:
    """Stands for a function that makes tensors of a kind that is not read."""

    def refuse(*_: Any) -> Any:
        raise _Unreadable(
            f"holds {what}, which are not read; load it with PyTorch, and save plain tensors"
        )

    return refuse


@dataclasses.dataclass(frozen=True)
class _Storage:
    """A run of elements in the file."""

    path: Path
    offset: int
    dtype: np.dtype
    count: int


def _tensor(
    storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> LazyTensor:
    """``torch._utils._rebuild_tensor_v2``."""
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    if len(shape) != len(strides) or any(n < 0 for n in (offset, *shape, *strides)):
        raise ValueError(f"a tensor of shape {shape} with strides {strides} at {offset}")
    dense, step = True, 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        dense = dense and (n == 1 or stride == step)
        step *= n
    where = storage.offset + offset * storage.dtype.itemsize
    shape, strides = tuple(shape), tuple(strides)
    stored = LazyTensor(storage.path, where, storage.dtype, shape, None if dense else strides)
    if offset + stored.span > storage.count:
        raise ValueError(f"a tensor of shape {shape} that is larger than its storage")
    return stored


def _bare_tensor(
    storage: Any,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    *_: Any,
) -> LazyTensor:
    """``torch._utils._rebuild_tensor_v3``, whose storage is one of bytes."""
    if not isinstance(dtype, np.dtype) or not isinstance(storage, _Storage):
        raise _Unreadable("holds tensors of a type that is not read; save them as float32")
    count = storage.count // dtype.itemsize
    return _tensor(_Storage(storage.path, storage.offset, dtype, count), offset, shape, strides)


def _parameter(data: Any, *_: Any) -> Any:
    """``torch._utils._rebuild_parameter``, and the same with attributes."""
    return data


def _from_type(function: Any, _type: Any, arguments: Any, _state: Any = None) -> Any:
    """``torch._tensor._rebuild_from_type_v2``: a tensor of another class."""
    if function not in (_tensor, _bare_tensor, _parameter, _Inert):
        raise ValueError("a tensor of a class that is not known")
    return function(*arguments)


def _member(owner: Any, name: Any = None, *_: Any) -> Any:
    """``getattr``, by which members of enumerations are pickled."""
    if isinstance(owner, _Named) and isinstance(name, str):
        return _Inert()
    raise _Refused("builtins.getattr")


_NAMES: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.getattr": _member,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch._utils._rebuild_tensor_v3": _bare_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": tuple,
    "torch.serialization._get_layout": str,
    **{f"torch.{name}": dtype for name, dtype in (names.STORAGES | names.BARE_DTYPES).items()},
    **{name: _unreadable(what) for name, what in names.UNREADABLE.items()},
}


class _Unpickler(pickle.Unpickler):
    """Follows the names in `_NAMES`, `tensor` standing for the one that makes tensors."""

    def __init__(
        self, file: IO[bytes], path: Path, storage: Callable[..., Any], tensor: Any = _tensor
    ):
        super().__init__(file)
        self._file, self._path, self._storage, self._tensor = file, path, storage, tensor
        self._named: dict[str, _Named] = {}

    def load(self) -> Any:
        begin = self._file.tell()
        for code, place, _ in pickletools.genops(self._file):
            if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= (place or 0) <= _MAX_MEMO:
                raise pickle.UnpicklingError(f"place {place} of its memo is too far")
        self._file.seek(begin)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        full = f"{names.PYTHON_2.get(module, module)}.{name}"
        if full == "torch._utils._rebuild_tensor_v2" or (
            full == "torch._utils._rebuild_tensor_v3" and self._tensor is _Inert
        ):
            return self._tensor
        if full in _NAMES:
            return _NAMES[full]
        if full in names.INERT or full.startswith(names.INERT_PACKAGES):
            return _Inert
        if names.INERT_DTYPES.fullmatch(full):
            return _Inert
        if full not in self._named:
            if len(self._named) >= _MAX_NAMES:
                raise InputError(f"{self._path}: its pickle names more than {_MAX_NAMES} objects")
            # Merely named, or an object made without a call: nothing can come of it.
            self._named[full] = _Named(full, (_Inert,), {})
        return self._named[full]

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 5 or not isinstance(pid[1], np.dtype):
            name = getattr(pid[1], "__name__", "") if isinstance(pid, tuple) and pid[1:] else ""
            if isinstance(pid, tuple) and pid[:1] == ("module",):
                raise _Unreadable(
                    "holds a whole module; load it where its code is at hand, and save its "
                    "state_dict()"
                )
            if name.startswith("torch.") and name.endswith("Storage"):
                kind = name.removeprefix("torch.").removesuffix("Storage")
                raise _Unreadable(f"holds tensors of type {kind}, which are not read")
            raise pickle.UnpicklingError("an unknown reference")
        _, dtype, key, _, count, *view = pid
        if view and view[0] is not None:
            raise pickle.UnpicklingError("a storage that is a view of another")
        return self._storage(dtype, str(key), int(count))


def _no_storage(*_: Any) -> Any:
    raise pickle.UnpicklingError("a storage outside of a checkpoint")


def _read_zip(path: Path, file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        roots = [name[: -len("data.pkl")] for name in infos if re.fullmatch("(.*/)?data.pkl", name)]
        if len(roots) != 1:
            raise InputError(
                f"{path}: a zip archive, but not a torch checkpoint (no data.pkl); if a checkpoint "
                "lies in it, unpack it"
            )
        root = roots[0]
        if f"{root}constants.pkl" in infos:
            raise _Unreadable(
                "is a TorchScript program; load it with torch.jit.load, and save its state_dict()"
            )
        order = infos.get(f"{root}byteorder")
        if order is not None and archive.read(order) != b"little":
            raise InputError(f"{path}: was written on a big-endian machine, which is not supported")

        def storage(dtype: np.dtype, key: str, count: int) -> _Storage:
            info = infos.get(f"{root}data/{key}")
            if info is None:
                raise zipfile.BadZipFile(f"no storage {key}")
            if info.compress_type != zipfile.ZIP_STORED:
                raise _Unreadable(
                    "its tensors are compressed, as another program than PyTorch packs them; load "
                    "it with PyTorch, and save it again"
                )
            if count * dtype.itemsize > info.file_size:
                raise zipfile.BadZipFile(f"storage {key} is too short")
            return _Storage(path, _data_offset(file, info), dtype, count)

        data = infos[f"{root}data.pkl"]
        if data.file_size > _MAX_PICKLE:
            raise InputError(f"{path}: its pickle has {data.file_size} bytes, too many to be one")
        with archive.open(data) as pickled:
            return _Unpickler(pickled, path, storage).load()


def _data_offset(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin, after its local header."""
    place = file.tell()
    file.seek(info.header_offset)
    header = file.read(30)
    file.seek(0, 2)
    size = file.tell()
    file.seek(place)
    if len(header) != 30 or header[:4] != _ZIP:
        raise zipfile.BadZipFile(f"no local header for {info.filename}")
    name, extra = struct.unpack("<HH", header[26:30])
    begin = info.header_offset + 30 + name + extra
    if begin + info.file_size > size:
        raise zipfile.BadZipFile(f"{info.filename} ends after the file")
    return begin


def _read_legacy(path: Path, file: IO[bytes]) -> Any:
    """Four pickles (magic, version, system, content), the order of the storages, their data."""
    counts: dict[str, tuple[np.dtype, int]] = {}
    places: dict[str, _Storage] = {}

    def note(dtype: np.dtype, key: str, count: int) -> None:
        counts[key] = dtype, count

    def load() -> Any:
        return _Unpickler(file, path, note, tensor=_Inert).load()

    file.seek(0)
    _magic, _version, system = load(), load(), load()
    if isinstance(system, dict) and not system.get("little_endian", True):
        raise InputError(f"{path}: was written on a big-endian machine, which is not supported")
    begin = file.tell()
    load()  # the storages come last: this pass finds their sizes, the next knows their places
    order = load()
    offset, size = file.tell(), path.stat().st_size
    for key in map(str, order):
        dtype, count = counts[key]
        file.seek(offset)
        end = offset + 8 + count * dtype.itemsize
        if file.read(8) != struct.pack("<q", count) or end > size:
            raise EOFError("ends within a storage")
        places[key] = _Storage(path, offset + 8, dtype, count)
        offset = end
    file.seek(begin)
    return _Unpickler(file, path, lambda _dtype, key, _count: places[key]).load()
