"""Runs the compiler for other hardware in a subprocess and reads its report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.pipeline.hardware.report import Report, from_dict
from syncos_jax.pipeline.hardware.targets import parse
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.sampler_dict import sampler_to_dict
from syncos_jax.scenario import Scenario

ANSWER = "answer: "


def compile_in_subprocess(
    target: str,
    model: str,
    scenario: Scenario,
    *,
    dtype: str = "bfloat16",
    sampler: SamplerConfig | None = None,
    weights_over: int = 1,
    decode: bool = True,
) -> Report:
    """`compile.report` in a process of its own: the compilers never free memory and may crash.

    Args: as for `compile.report`.

    Raises:
        InputError: as there, or the compiler crashed.
    """
    parse(target)
    question = {
        "target": target,
        "model": model,
        "scenario": scenario.model_copy(update={"lora": ()}).to_dict(),  # only shapes count
        "sampler": None if sampler is None else sampler_to_dict(sampler),
        "dtype": dtype,
        "weights_over": weights_over,
        "decode": decode,
    }
    with tempfile.TemporaryDirectory() as folder:  # the TPU compiler locks a file in it
        done = subprocess.run(
            [sys.executable, "-m", "syncos_jax.pipeline.hardware.compile_worker"],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **_ENVIRONMENT, "TMPDIR": folder},
        )
    answers = [line for line in done.stdout.splitlines() if line.startswith(ANSWER)]
    if not answers:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        raise InputError(
            f"the compiler ended with {how} ({last[0][:200]})",
            place=target,
            remedy="try another version of its package",
        )
    answer: dict[str, Any] = json.loads(answers[-1].removeprefix(ANSWER))
    if "error" in answer:
        raise InputError(answer["error"])
    return from_dict(answer)


_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
    "TPU_SKIP_MDS_QUERY": "1",  # no query for this machine's TPU
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no device is used, so several may be loaded
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
