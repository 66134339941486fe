"""What identifies a model: hashes of its weights, which a converted folder already has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

HASHES = "weights.json"
"""In a converted folder: of each network and weight dtype, shape and SHA-256."""

_NETWORKS = {"text": "text_encoder"}  # keys of `Model.weights` that are not a network's name

Leaf = tuple[str, list[int], str]


def leaf_hash(value: Any) -> Leaf:
    """dtype, shape and SHA-256 of an array's bytes in C order.

    An array split over several hosts is gathered, which all of them have to do at the same time.
    """
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        from jax.experimental import multihost_utils

        value = multihost_utils.process_allgather(value, tiled=True)
    host = np.ascontiguousarray(np.asarray(value))
    digest = hashlib.sha256(host.reshape(-1).view(np.uint8).data).hexdigest()
    return str(host.dtype), list(host.shape), digest


def network_hash(leaves: Mapping[str, Leaf]) -> str:
    """SHA-256 of a network: path, dtype, shape and content of every weight.

    Args:
      leaves: of each weight by dotted path.
    """
    lines = sorted(f"{path} {' '.join(map(str, leaf))}" for path, leaf in leaves.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def tree_hash(tree: Any) -> str:
    """`network_hash` of a pytree of arrays."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return network_hash({_dotted(path): leaf_hash(leaf) for path, leaf in found})


def hash_weights(networks: Mapping[str, Any], known: Mapping[str, str] | None = None) -> str:
    """SHA-256 of all networks of a model, as they compute.

    The same model loaded in another dtype has another hash; how its folder lies on disk does not
    matter.

    Args:
      networks: pytrees of arrays, by name.
      known: hashes of some networks, which are then not read.
    """
    known = known or {}
    lines = []
    for key, tree in networks.items():
        name = _NETWORKS.get(key, key)
        lines.append(f"{name} {known[name] if name in known else tree_hash(tree)}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _dotted(path: tuple[Any, ...]) -> str:
    names = jax.tree_util.keystr(path, simple=True, separator=".").split(".")
    return ".".join(names[:-1] if names[-1] == "value" else names)


def write(folder: Path, network: str, hashes: Mapping[str, Leaf]) -> None:
    """Adds to a converted folder the `leaf_hash` of each of a network's weights, by dotted path."""
    path = folder / HASHES
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    held[network] = dict(hashes)
    path.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


def read(folder: Path, network: str, dtypes: Mapping[str, Any]) -> str | None:
    """The hash of a network in a converted folder, without reading its weights; None if the folder
    has none.

    Args:
      folder: a converted model.
      network: its name.
      dtypes: of the weights as loaded, by dotted path. Where they are those on disk, the hash is
        that of the loaded weights.
    """
    try:
        held = json.loads((folder / HASHES).read_text(encoding="utf-8"))[network]
        stored = {name: (str(d), list(map(int, s)), str(h)) for name, (d, s, h) in held.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    loaded = {name: str(dtype) for name, dtype in dtypes.items()}
    if loaded.keys() != stored.keys():
        return None
    if all(leaf[0] == loaded[name] for name, leaf in stored.items()):
        return network_hash(stored)
    as_loaded = " ".join(f"{name} {loaded[name]}" for name in sorted(loaded))
    return hashlib.sha256(f"{network_hash(stored)} as {as_loaded}".encode()).hexdigest()
