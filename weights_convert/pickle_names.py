"""Names in the pickles of checkpoints: storages, what becomes a placeholder, what is not read."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np

STORAGES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
    "storage.UntypedStorage": np.dtype(np.uint8),
}
BARE_DTYPES: dict[str, np.dtype] = {
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
}
"""Of tensors in storages that have no type."""
UNREADABLE = {
    "torch._utils._rebuild_sparse_tensor": "sparse tensors",
    "torch._utils._rebuild_qtensor": "quantised tensors",
    "torch._utils._rebuild_meta_tensor_no_storage": "tensors without data (on the meta device)",
    "torch._utils._rebuild_nested_tensor": "nested tensors",
    "torch._utils._rebuild_wrapper_subclass": "tensors of a class of their own (quantised, say)",
    "torch._utils._rebuild_device_tensor_from_numpy": "tensors of another device",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "tensors of another device",
}
# What may be called beside the weights, to make a plain value: it becomes a placeholder.
INERT_PACKAGES = (
    "accelerate.",
    "datetime.",
    "lightning.",
    "lightning_fabric.",
    "lightning_utilities.",
    "ml_collections.",
    "omegaconf.",
    "pathlib.",
    "pytorch_lightning.",
    "torch.optim.",
    "transformers.",
    "zoneinfo.",
)
INERT = {
    "_codecs.encode",
    "addict.addict.Dict",
    "argparse.Namespace",
    "builtins.bool",
    "builtins.bytearray",
    "builtins.bytes",
    "builtins.complex",
    "builtins.dict",
    "builtins.float",
    "builtins.frozenset",
    "builtins.int",
    "builtins.list",
    "builtins.object",
    "builtins.range",
    "builtins.set",
    "builtins.slice",
    "builtins.str",
    "builtins.tuple",
    "collections.Counter",
    "collections.defaultdict",
    "collections.deque",
    "copyreg._reconstructor",
    "decimal.Decimal",
    "easydict.EasyDict",
    "fractions.Fraction",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    "numpy.core.numeric._frombuffer",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.device",
    "torch.torch_version.TorchVersion",
    "types.SimpleNamespace",
    "typing.Any",
    "uuid.UUID",
    "yacs.config.CfgNode",
}
INERT_DTYPES = re.compile(r"numpy\.(?:dtypes\.)?\w*(?:[Dd]Type|int\d*|float\d*|bool_?)")

PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules under the names that pickles of protocol 2 give them."""
