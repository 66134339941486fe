"""A converted model's folder: ``config.json``, one Orbax checkpoint per network, the tokenizer.

The Orbax trees are nested as the NNX modules are, with plain strings as keys, so
``orbax.checkpoint`` alone can read them.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.files.versioned import FileFormat
from syncos_jax.models import identity
from syncos_jax.models.family import DEFAULT_FAMILY, family_named
from syncos_jax.models.layers import DType
from syncos_jax.models.streamed import PendingWeight, save
from syncos_jax.models.weights import assign, leaves

CONFIG = FileFormat(
    "syncos_jax",
    "the config.json of a converted model",
    remedy="give a folder that syncos convert wrote, or one in diffusers' layout",
    remedy_version="convert the checkpoint again",
)
TOKENIZER = "tokenizer"
SEAL = "files.json"
_HASHERS = 4

_IN_FLIGHT_GB = 1
"""Most that Orbax may copy at a time. Without a limit it copies everything at once: a peak of 2.5
times the network was measured, with it one of 1.0."""

_SETTLE_SECONDS = 20.0


def build(name: str, config: Any, dtype: DType) -> Any:
    """A network without weights (``nnx.eval_shape``)."""
    return config.build(name, dtype)


def is_saved(folder: Path) -> bool:
    """Whether `folder` is a converted model (if perhaps a damaged one)."""
    return (folder / "config.json").is_file() and not (folder / "model_index.json").exists()


def write_config(folder: Path, config: Any, networks: list[str]) -> None:
    """Writes ``config.json`` of a model that has these networks."""
    values = {"family": config.family, "networks": networks, **config.to_dict()}
    CONFIG.write(folder / "config.json", values)


def seal(folder: Path) -> None:
    """Writes ``files.json``: size and SHA-256 of every file that the folder holds now.

    What is read later is compared with it, so that a flipped bit is found.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SEAL)
    with ThreadPoolExecutor(_HASHERS) as pool:
        digests = list(pool.map(_sha256, paths))
    held = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": digest}
        for path, digest in zip(paths, digests, strict=True)
    }
    (folder / SEAL).write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


def damaged(folder: Path, part: str = "") -> list[str] | None:
    """The files of a part (a network, the tokenizer; "" for all) that are not as they were written,
    each with what is wrong; None where the folder has no hashes, being of an earlier version.

    Raises:
        InputError: hashes that cannot be read.
    """
    try:
        held = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        wanted = {
            str(name): (entry["bytes"], entry["sha256"])
            for name, entry in held.items()
            if not part or str(name).startswith(f"{part}/")
        }
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{folder / SEAL}: cannot be read; convert again") from error

    def wrong(name: str) -> str:
        path = folder / name
        try:
            size = path.stat().st_size
            if size != wanted[name][0]:
                return f"{name} has {size} bytes, not {wanted[name][0]}"
            return "" if _sha256(path) == wanted[name][1] else f"{name} has other content"
        except OSError:
            return f"{name} is missing"

    with ThreadPoolExecutor(_HASHERS) as pool:
        return [said for said in pool.map(wrong, wanted) if said]


def refuse_damaged(folder: Path, part: str) -> None:
    """InputError where a file of a part is not as it was written."""
    _refuse(folder / part, damaged(folder, part))


def _refuse(path: Path, problems: list[str] | None) -> None:
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(
            f"{path}: is damaged: {', '.join(problems[:3])}{more}; copy the folder again, or "
            "convert the checkpoint again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_config(folder: Path) -> tuple[Any, list[str]]:
    """The configuration, and the names of the networks that the folder has.

    Raises:
        InputError: not readable, of another format or of a later version.
    """
    path = folder / "config.json"
    try:
        values = CONFIG.read(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {CONFIG.remedy}") from error
    for key in CONFIG.head:
        del values[key]
    try:
        config_class = family_named(values.pop("family", DEFAULT_FAMILY)).config_class
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    networks, known = values.pop("networks", None), config_class.networks
    if not isinstance(networks, list) or not networks or any(n not in [*known] for n in networks):
        raise InputError(f"{path}: networks is {networks!r}; expected some of {known}")
    try:
        config = config_class.from_dict(values)
        config.noise_schedule()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (TypeError, ValueError, LookupError, ArithmeticError, MemoryError) as error:
        raise InputError(f"{path}: schedule: has a value that cannot be: {error}") from error
    return config, networks


def write_network(folder: Path, weights: Mapping[str, jax.Array | PendingWeight]) -> None:
    """Writes one network's weights, given by dotted path, as an Orbax checkpoint.

    Raises:
        InputError: as a weight's `make`.
        OSError: the disk is full, say.
    """
    hashes: dict[str, identity.Leaf] = {}

    def hashed(path: str, weight: jax.Array | PendingWeight) -> PendingWeight:
        def make() -> np.ndarray:
            array = weight.make() if isinstance(weight, PendingWeight) else np.asarray(weight)
            hashes[path] = identity.leaf_hash(array)
            return array

        return PendingWeight(tuple(weight.shape), np.dtype(weight.dtype), make)

    with orbax_quiet():
        try:
            save(folder, _nest({path: hashed(path, weight) for path, weight in weights.items()}))
        except (InputError, KeyboardInterrupt):
            _settle(folder.parent)
            raise
        except Exception as error:  # tensorstore has no class of its own for these
            reason = _reason(error)
            del error
            _settle(folder.parent)
            failure = OSError(0, reason, str(folder))
        else:
            identity.write(folder.parent, folder.name, hashes)
            return
    raise failure


def _no_word_of_failed_writes() -> None:
    """What Orbax cannot write it raises, and its caller says so in one line. It would also log
    that with its traces: from the thread that writes in the background, and once more when what it
    gave up on is collected, if only at exit."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_of_orbax)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    if not isinstance(sys.unraisablehook, _WithoutLateWrites):
        sys.unraisablehook = _WithoutLateWrites(sys.unraisablehook)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    if record.levelno < logging.ERROR:
        return True
    files, trace = [record.pathname], record.exc_info[2] if record.exc_info else None
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    return not any("orbax" in text for text in (*files, record.getMessage()))


class _WithoutLateWrites:
    """A ``sys.unraisablehook``: ends writes that were given up without a word."""

    def __init__(self, others: Callable[[Any], None]) -> None:
        self._others = others

    def __call__(self, unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            self._others(unraisable)


def _settle(folder: Path) -> None:
    """Waits until the writes that Orbax has given up on are over: after the first one failed the
    others go on in the background, and would fill a folder that is being removed."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    before: dict[str, int] | None = None
    while time.monotonic() < deadline:
        gc.collect()  # their complaints come when they are collected: now, while nobody listens
        try:
            now = {str(p): p.stat().st_size for p in folder.rglob("*")}
        except OSError:
            now = None
        if now is not None and now == before:
            return
        before = now
        time.sleep(0.5)


Where = Callable[[tuple[int, ...]], jax.sharding.Sharding]
"""Where a weight of some shape goes."""


def read_network(
    folder: Path, name: str, config: Any, dtype: DType, sharding: jax.sharding.Sharding | Where
) -> Any:
    """Restores a network straight onto the devices of `sharding`, in `dtype`; where that divides a
    weight, each device gets its part of it and nothing more.

    Raises:
        InputError: missing, damaged, or not the network that the configuration describes.
    """
    import orbax.checkpoint as ocp

    path = (folder / name).absolute()
    abstract = build(name, config, dtype)
    expected = leaves(abstract)
    if not path.is_dir():
        raise InputError(f"{folder}: has no weights of its {name}; convert the checkpoint again")
    handler = ocp.PyTreeCheckpointHandler(restore_concurrent_gb=_IN_FLIGHT_GB)
    where = sharding if callable(sharding) else lambda shape: sharding
    args = {
        key: ocp.ArrayRestoreArgs(
            dtype=leaf.dtype, sharding=where(leaf.shape), global_shape=leaf.shape
        )
        for key, leaf in expected.items()
    }
    pool = ThreadPoolExecutor(1)  # while Orbax reads, which waits for the disk
    checked = pool.submit(damaged, folder, name)
    pool.shutdown(wait=False)
    try:
        with orbax_quiet(), ocp.Checkpointer(handler) as checkpointer:
            found = _flatten(checkpointer.metadata(path).item_metadata)
            if set(found) <= {""}:
                raise InputError(
                    "not a readable Orbax checkpoint", place=path, remedy="convert again"
                )
            problems = [f"unknown {key}" for key in found if key not in expected]
            problems += [f"missing {key}" for key in expected if key not in found]
            problems += [
                f"misshaped {key}: {tuple(found[key].shape)}, expected {leaf.shape}"
                for key, leaf in expected.items()
                if key in found and tuple(found[key].shape) != leaf.shape
            ]
            if problems:
                raise InputError(f"{path}: does not fit config.json: {'; '.join(problems[:100])}")
            item = _nest(expected)
            tree = checkpointer.restore(
                path, args=ocp.args.PyTreeRestore(item=item, restore_args=_nest(args))
            )
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: cannot be restored: {_reason(error)}") from error
    _refuse(path, checked.result())
    return assign(abstract, _flatten(tree))


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *outer, last = key.split(".")
        node = tree
        for part in outer:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def _flatten(tree: Any) -> dict[str, Any]:
    if hasattr(tree, "tree"):
        tree = tree.tree
    flat: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, Mapping):
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else str(key))
        else:
            flat[path] = node

    walk(tree, "")
    return flat


def _reason(error: Exception) -> str:
    """The part of tensorstore's long messages that says what happened."""
    text = " ".join(str(error).split())
    for known in ("No space left on device", "File too large", "Permission denied"):
        if known in text:
            return known
    return text[:300] or type(error).__name__


@contextmanager
def orbax_quiet() -> Any:
    """Keeps Orbax from logging what it does, and its errors, which are raised as well."""
    _no_word_of_failed_writes()
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception:  # reads that were given up end about now
        time.sleep(0.5)
        gc.collect()
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
