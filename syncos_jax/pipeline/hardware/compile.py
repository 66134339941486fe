"""Compiles a request's programs for hardware you don't have; runs nothing and holds no weights.

The process is of little use afterwards, so `compile_client` does it in another one.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from syncos_jax.errors import InputError
from syncos_jax.models.family import Model
from syncos_jax.models.networks import NetworkModel
from syncos_jax.pipeline.flops import flops
from syncos_jax.pipeline.hardware.abstract import abstract_model
from syncos_jax.pipeline.hardware.program import read
from syncos_jax.pipeline.hardware.report import SHARE, Compiled, Memory, Report
from syncos_jax.pipeline.hardware.targets import Target
from syncos_jax.pipeline.request import Request, prepare
from syncos_jax.sampling.devices import MODEL, make_mesh
from syncos_jax.sampling.loop import Inputs, Program, init_carry
from syncos_jax.sampling.methods import make_method
from syncos_jax.sampling.noise import video_key
from syncos_jax.sampling.placement import REPLICATED, Placement, Rules, compiled
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.scenario import Scenario

WIDE = 2**20
"""Elements of an operand from which a float32 product is reported."""

OPTIONS = {
    # Without a GPU the compiler cannot time its own kernels; cuBLAS needs no timing.
    "cuda": {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0},
    "tpu": {},
}
_REFUSED = re.compile(r"[Uu]sed ([\d.]+)([KMG]) of ([\d.]+)([KMG])")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}

Say = Callable[[str], None]


def report(
    target: Target,
    model: str,
    scenario: Scenario,
    *,
    dtype: Any = "bfloat16",
    sampler: SamplerConfig | None = None,
    weights_over: int = 1,
    decode: bool = True,
    say: Say = lambda line: None,
) -> Report:
    """Compiles a run's program, with fewer windows per call if it does not fit, and the decoder's.

    Args:
        target: the hardware.
        model: as for `abstract_model`.
        scenario: what the video shows.
        dtype: of weights and computation.
        sampler: settings in place of the scenario's. If they set the windows per call, no other
            number is tried.
        weights_over: devices over which the denoiser's weights are sharded.
        decode: whether to compile the decoder too.
        say: called with one line about each step.

    Raises:
        InputError: invalid request or hardware, or the compiler is missing.
    """
    mesh = make_mesh(target.devices(), model=weights_over)
    rules = Rules(feature=MODEL) if weights_over > 1 else REPLICATED
    job = Job(abstract_model(model, jnp.dtype(dtype)), Placement(mesh, rules=rules), target, say)
    request = job.prepare(scenario, sampler)
    best, tried = fitting(job, scenario, request)
    decoder = job.decoder(request) if decode else None
    advice = "" if best.fits else _advice(best, target, weights_over)
    return Report(
        target=str(target),
        model=job.model.name,
        dtype=str(jnp.dtype(dtype)),
        weights_over=weights_over,
        run=best,
        decode=decoder,
        tried={str(windows): fits for windows, fits in sorted(tried.items())},
        advice=advice,
    )


def fitting(job: Job, scenario: Scenario, request: Request) -> tuple[Compiled, dict[int, bool]]:
    """The program with as many windows per call as fit, up to the request's own number (only that
    one if the settings give it), and what was tried. Compiles at most four."""
    best = job.run(request)
    tried = {best.windows: best.fits}
    if best.fits or request.sampler.windows_per_call is not None:
        return best, tried
    devices = job.placement.num_clip_shards
    room = SHARE * job.target.chip.memory
    most, least = (
        best,
        job.run(job.prepare(scenario, request.sampler.replace(windows_per_call=devices))),
    )
    tried[least.windows] = least.fits
    low, high = least, most
    while low.fits and len(tried) < 4:
        slope = (high.memory.total - low.memory.total) / (high.windows - low.windows)
        guess = low.windows + int((room - low.memory.total) / max(slope, 1.0))
        guess = min(guess, high.windows - devices) // devices * devices
        if guess <= low.windows:
            break
        one = job.run(job.prepare(scenario, request.sampler.replace(windows_per_call=guess)))
        if one.windows in tried:
            break
        tried[one.windows] = one.fits
        low, high = (one, high) if one.fits else (low, one)
    return low, tried


def _advice(run: Compiled, target: Target, weights_over: int) -> str:
    over = run.memory.total - int(SHARE * target.chip.memory)
    held = run.memory.weights + run.memory.others
    if target.count > 1 and weights_over == 1 and run.memory.weights > over:
        return "split the denoiser's weights over several devices"
    if held > SHARE * target.chip.memory:
        return "the weights alone exceed a device's memory: use more devices or a smaller model"
    return "use a smaller frame, fewer windows per call, or a device with more memory"


@dataclasses.dataclass(frozen=True)
class Job:
    """A model on a target.

    Attributes:
        model: without weights.
        placement: the target's devices.
        target: the hardware.
        say: called with one line about each step.
    """

    model: Model
    placement: Placement
    target: Target
    say: Say

    def prepare(self, scenario: Scenario, sampler: SamplerConfig | None) -> Request:
        """The request, as `Pipeline.prepare`."""
        return prepare(self.model, self.placement, scenario, sampler)

    def run(self, request: Request) -> Compiled:
        """Compiles the program of a run."""
        call_schedule = request.call_schedule
        sampler = request.sampler
        each = 1 + (sampler.guidance != 1.0) + bool(sampler.perturbed_guidance)
        windows = max(1, call_schedule.samples_per_call // each)
        self.say(f"compiling for {self.target.title}: {windows} windows per call")
        arguments = self._arguments(request)
        shares = self.placement.num_clip_shards
        weights = self._on_device(arguments[-1].params)
        others = self._others()
        work = flops(
            self.model.denoiser_at(request.sampler.boundary), *denoiser_arguments(request, shares)
        )
        values = self._compiled(
            lambda: compiled(self._program(request), self.placement).lower(  # type: ignore[attr-defined]
                *arguments
            ),
            weights=weights,
            others=others,
        )
        return Compiled(
            name="run",
            clips=call_schedule.samples_per_call,
            windows=windows,
            rows=len(call_schedule),
            flops=work,
            **values,
        )

    def decoder(self, request: Request) -> Compiled | None:
        """Compiles the program that decodes a chunk of latents; None if the model has none."""
        found = self.model.decoding(request.frame_shape)
        if found is None:
            return None
        self.say(f"compiling for {self.target.title}: the decoder")
        function, (graphdef, *arguments) = found
        placed = self._replicated(arguments)
        values = self._compiled(
            lambda: function.lower(graphdef, *placed),
            weights=_bytes(arguments[0]),
            others=self._others() - _bytes(arguments[0]) + self._on_device(self.model.params),
        )
        latents = arguments[1].shape[0]
        work = flops(lambda *a: function(graphdef, *a), *arguments)
        count = -(-request.layout.frames // latents)
        return Compiled(name="decode", clips=1, windows=1, rows=count, flops=work, **values)

    def _compiled(self, lower: Callable[[], Any], weights: int, others: int) -> dict[str, Any]:
        begin = time.monotonic()
        try:
            with self.placement.compiling():
                lowered = lower()
            done = lowered.compile(compiler_options=OPTIONS[self.target.chip.platform])
        except jax.errors.JaxRuntimeError as error:
            needed = _needed(str(error))
            if needed is None:
                reason = " ".join(str(error).split())[:300]
                raise InputError(
                    f"the compiler rejects the program: {reason}", place=str(self.target)
                ) from error
            memory = Memory(weights, others, 0, max(0, needed - weights))
            return {
                "memory": memory,
                "fits": False,
                "note": "out of memory in the compiler",
                "compile_seconds": round(time.monotonic() - begin, 1),
            }
        seconds = time.monotonic() - begin
        analysis = done.memory_analysis()
        temporary = (
            analysis.temp_size_in_bytes
            + analysis.output_size_in_bytes
            - analysis.alias_size_in_bytes
            + analysis.generated_code_size_in_bytes
        )
        state = max(0, analysis.argument_size_in_bytes - weights)
        memory = Memory(weights, others, int(state), int(temporary))
        program = read(done.as_text())
        cost = done.cost_analysis() or {}
        counted = program.bytes
        return {
            "memory": memory,
            "fits": memory.total <= SHARE * self.target.chip.memory,
            "bytes": float(cost.get("bytes accessed", 0.0)) or counted,
            "counted": counted,
            "exchanged": program.collectives(),
            "copies": program.moved(),
            "wide": tuple(program.products("f32", WIDE)),
            "compile_seconds": round(seconds, 1),
        }

    def _program(self, request: Request) -> Program:
        method = make_method(
            request.layout, request.schedule, request.sampler, request.call_schedule
        )
        return Program(
            self.model.denoiser_at(request.sampler.boundary), method, self.placement.clip_axes
        )

    def _arguments(self, request: Request) -> list[Any]:
        call_schedule, key = request.call_schedule, video_key(0)
        method = make_method(request.layout, request.schedule, request.sampler, call_schedule)

        def carry() -> Any:
            state = method.init(key, request.frame_shape)
            return init_carry(state, method, request.frame_shape)

        mesh, rules = self.placement.mesh, self.placement.rules
        weights = jax.tree.map(
            lambda leaf: _shape(leaf, rules.weights(mesh, leaf.shape)), self.model.params
        )
        table = self.model.conditioning_shapes(request.prompt_weights.shape[0])
        rest = (
            jax.eval_shape(carry),
            (call_schedule.calls, call_schedule.updates),
            (np.int32(0), np.int32(0)),
        )
        windows = request.window_conditioning_shapes(request.layout.count) or None
        cond, keys, constants, windows = self._replicated(
            (table, jax.eval_shape(lambda: key), call_schedule.constants, windows)
        )
        inputs = Inputs(weights, cond, keys, None, constants, None, windows)
        return [*self._replicated(rest), inputs]

    def _replicated(self, tree: Any) -> Any:
        sharding = NamedSharding(self.placement.mesh, P())
        return jax.tree.map(lambda leaf: _shape(leaf, sharding), tree)

    def _on_device(self, params: Any) -> int:
        """Bytes of weights on each device, where they are divided."""
        rules, mesh = self.placement.rules, self.placement.mesh
        return sum(
            int(np.prod(rules.weights(mesh, leaf.shape).shard_shape(leaf.shape)))
            * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(params)
        )

    def _others(self) -> int:
        """Bytes of all other weights on each device: those of text encoders are divided as the
        denoiser's are, the autoencoder's are on every device."""
        model = self.model
        shardable = model.shardable if isinstance(model, NetworkModel) else ("denoiser",)
        names = {"text": "text_encoder"}
        each = (
            self._on_device(tree) if names.get(name, name) in shardable else _bytes(tree)
            for name, tree in model.weights.items()
        )
        return sum(each) - self._on_device(model.params)


def denoiser_arguments(request: Request, shares: int) -> list[Any]:
    """Abstract arguments of the denoiser: one device's part of a call."""
    count, window = request.call_schedule.samples_per_call // shares, request.layout.window
    times = (count,) if request.sampler.lookahead is None else (count, window)
    return [
        request.model.params,
        jax.ShapeDtypeStruct((count, window, *request.frame_shape), jnp.float32),
        jax.ShapeDtypeStruct(times, jnp.float32),
        request.conditioning_shapes(count),
    ]


def _shape(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    return jax.ShapeDtypeStruct(np.shape(leaf), dtype, sharding=sharding)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _needed(message: str) -> int | None:
    """Bytes that a program would have needed, from the compiler's error."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    found = _REFUSED.search(message)
    return int(float(found[1]) * _UNITS[found[2]]) if found else 0
