"""Models without weights, from which programs can be compiled."""

from __future__ import annotations

from typing import Any

from syncos_jax.models import saved
from syncos_jax.models.cogvideox.config import CogVideoXTransformerConfig, CogVideoXVAEConfig
from syncos_jax.models.cogvideox.settings import CogVideoXConfig
from syncos_jax.models.family import Model, family_named
from syncos_jax.models.layers import DType
from syncos_jax.models.ltx.settings import LTXConfig
from syncos_jax.models.open_sora_plan.settings import OpenSoraPlanConfig
from syncos_jax.models.t5 import T5Config
from syncos_jax.models.wan.config import WanTransformerConfig, WanVAEConfig
from syncos_jax.models.wan.settings import WanConfig
from syncos_jax.pipeline.load import model_folder, quantization


def _videocrafter2() -> Any:
    from syncos_jax.weights_convert.lvdm_config import read

    return read([], "videocrafter2", "").model


def _cogvideox(transformer: CogVideoXTransformerConfig, name: str) -> CogVideoXConfig:
    from syncos_jax.weights_convert.cogvideox import SCHEDULER, schedule
    from syncos_jax.weights_convert.scheduler_config import solver_values

    return CogVideoXConfig(
        name=name,
        transformer=transformer,
        vae=CogVideoXVAEConfig(),
        text=T5Config.t5_xxl(),
        schedule=schedule(SCHEDULER),
        solver=solver_values(SCHEDULER),
    )


def _wan(transformer: WanTransformerConfig, name: str) -> WanConfig:
    from syncos_jax.weights_convert.wan import SCHEDULE, SOLVER

    return WanConfig(
        name=name,
        transformer=transformer,
        vae=WanVAEConfig(),
        text=T5Config.umt5_xxl(),
        schedule=SCHEDULE,
        solver=SOLVER,
    )


PUBLISHED = {
    "videocrafter2": _videocrafter2,
    "cogvideox-2b": lambda: _cogvideox(CogVideoXTransformerConfig.cogvideox_2b(), "cogvideox-2b"),
    "cogvideox-5b": lambda: _cogvideox(CogVideoXTransformerConfig.cogvideox_5b(), "cogvideox-5b"),
    "wan2.1-1.3b": lambda: _wan(WanTransformerConfig.wan_1_3b(), "wan2.1-1.3b"),
    "open-sora-plan-1.3": lambda: OpenSoraPlanConfig(name="open-sora-plan-1.3"),
    "ltx-2.3": lambda: LTXConfig(name="ltx-2.3"),
    "wan2.1-14b": lambda: _wan(WanTransformerConfig.wan_14b(), "wan2.1-14b"),
}
"""Published models by name, for plans before anything is downloaded."""


def abstract_model(name_or_dir: str, dtype: DType) -> Model:
    """A model whose weights are shapes (`jax.ShapeDtypeStruct`).

    Args:
        name_or_dir: one of `PUBLISHED`, ``"demo"``, or a model folder, of which only the
            configuration is read; with ``@int8`` appended as for `load_model`.
        dtype: of weights and computation.

    Raises:
        InputError: no such model.
    """
    name_or_dir, how = quantization(name_or_dir)
    model = _abstract(name_or_dir, dtype)
    if how is not None:
        model.quantize(how)
    return model


def _abstract(name_or_dir: str, dtype: DType) -> Model:
    if name_or_dir in PUBLISHED:
        config = PUBLISHED[name_or_dir]()
        names = [name for name in config.networks if name != "transformer_2"]
        return _of(config, names, dtype)
    folder = model_folder(name_or_dir)
    if saved.is_saved(folder):
        return _of(*saved.read_config(folder), dtype)
    from syncos_jax.weights_convert.diffusers_folder import read_config

    config = read_config(folder)
    return _of(config, list(config.networks), dtype)


def _of(config: Any, names: list[str], dtype: DType) -> Model:
    from pathlib import Path

    networks = {name: saved.build(name, config, dtype) for name in names}
    return family_named(config.family).from_networks(config, networks, Path("nowhere"))
