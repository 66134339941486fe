"""The predicted cost of a run: FLOPs, memory and time, without compiling or running anything."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from syncos_jax.pipeline.flops import flops_of, inner_jaxprs
from syncos_jax.pipeline.request import Request
from syncos_jax.pipeline.timings import recall
from syncos_jax.pipeline.versions import device_of
from syncos_jax.sampling.loop import init_carry
from syncos_jax.sampling.noise import video_key


@dataclass(frozen=True)
class Cost:
    """The predicted cost of a run.

    Attributes:
        calls: network calls.
        samples_per_call, samples, padding, windows: as for `CallSummary`.
        steps, co_denoising_updates, refinement_updates: likewise.
        flops_per_call: floating-point operations of one call (`syncos_jax.pipeline.flops`).
        flops_decode_frame: of decoding one latent frame; 0 if the model does not say.
        flops: of the whole run, calls and decoding.
        weights_bytes: weights of the networks, as loaded.
        state_bytes: latents, noise, optimiser state and predictions of an update.
        call_bytes: upper estimate of the memory for one call: its largest sum of live intermediate
            values, before XLA fuses any.
        seconds: of the whole run, by the last run of this kind on this machine; None without one.
        seconds_start: of these, loading the model and compiling; 0 if unknown.
        seconds_per_call: of one call; None if unknown.
        scaled_from: samples per call of the measured run, if it was another number.
    """

    calls: int
    samples_per_call: int
    samples: int
    padding: int
    windows: int
    steps: int
    passes: int
    optimizer_steps: int
    flops_per_call: float
    flops_decode_frame: float
    flops: float
    weights_bytes: int
    state_bytes: int
    call_bytes: int
    seconds: float | None
    seconds_start: float
    seconds_per_call: float | None
    scaled_from: int | None

    @property
    def memory_bytes(self) -> int:
        """Weights, state and one call."""
        return self.weights_bytes + self.state_bytes + self.call_bytes


def estimate(request: Request, cond: Any) -> Cost:
    """The cost of a request.

    Args:
        request: what is to be made.
        cond: its encoded prompts, concrete or abstract.
    """
    model, summary = request.model, request.summary
    decoding = model.decoding(request.frame_shape)
    flops_frame = 0.0
    if decoding is not None:  # of one latent frame, or of several decoded together
        traced = decoding[0].trace(*decoding[1]).jaxpr.jaxpr
        flops_frame = flops_of(traced) / decoding[1][2].shape[0]
    flops_call, call_bytes = cost_of_call(request, cond)
    speed = recall(timing_key(request))
    return Cost(
        **dataclasses.asdict(summary),
        flops_per_call=flops_call,
        flops_decode_frame=flops_frame,
        flops=flops_call * summary.calls + flops_frame * request.layout.frames,
        weights_bytes=tree_bytes(dict(model.weights)),
        state_bytes=state_bytes(request),
        call_bytes=call_bytes,
        seconds=None if speed is None else speed.total(summary.calls, request.frames),
        seconds_start=0.0 if speed is None else speed.load + speed.compile,
        seconds_per_call=None if speed is None else speed.call,
        scaled_from=None if speed is None else speed.scaled_from,
    )


def memory_bytes(request: Request) -> int:
    """Weights, state and one network call, quickly: traces are cached (`cost_of_call`)."""
    cond = request.model.conditioning_shapes(1)
    weights = tree_bytes(dict(request.model.weights))
    return weights + state_bytes(request) + cost_of_call(request, cond)[1]


_of_samples: dict[Any, list[tuple[float, int]]] = {}
_tracing = threading.Lock()


def cost_of_call(request: Request, cond: Any) -> tuple[float, int]:
    """FLOPs of one network call, and bytes of its intermediate values that live at once.

    Both grow linearly with the samples, so the network is traced with one and with two samples,
    once for each shape of frames; that serves videos of any length.
    """
    model = request.model
    key = (id(model), request.layout.window, request.frame_shape, request.sampler.lookahead)
    with _tracing:
        if key not in _of_samples:
            denoise = jax.jit(model.denoiser)
            traced = [denoise.trace(*_abstract_call(request, cond, n)).jaxpr.jaxpr for n in (1, 2)]
            _of_samples[key] = [(flops_of(jaxpr), peak_live_bytes(jaxpr)) for jaxpr in traced]
        one, two = _of_samples[key]
    more = request.call_schedule.samples_per_call - 1
    return one[0] + more * (two[0] - one[0]), one[1] + more * (two[1] - one[1])


def _abstract_call(request: Request, cond: Any, samples: int) -> list[Any]:
    """Abstract arguments of a network call with so many samples; `cond` of any number of them."""
    window = request.layout.window
    times = (samples,) if request.sampler.lookahead is None else (samples, window)
    of_samples = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((samples, *leaf.shape[1:]), leaf.dtype), cond
    )
    more = request.window_conditioning_shapes(samples)
    if more:
        of_samples = {**of_samples, **more}
    x = jax.ShapeDtypeStruct((samples, window, *request.frame_shape), jnp.float32)
    return [request.model.params, x, jax.ShapeDtypeStruct(times, jnp.float32), of_samples]


def state_bytes(request: Request) -> int:
    """Bytes of what the sampler carries from call to call."""
    method = request.program[0]

    def carry() -> Any:
        state = method.init(video_key(0), request.frame_shape)
        return init_carry(state, method, request.frame_shape)

    return tree_bytes(jax.eval_shape(carry))


def timing_key(request: Request) -> dict[str, Any]:
    """What the speed of a run depends on besides its length: the key of
    `syncos_jax.pipeline.timings`."""
    leaves = jax.tree_util.tree_leaves_with_path(dict(request.model.weights))
    shapes = [f"{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}" for path, leaf in leaves]
    device = device_of(request.placement)
    return {
        "networks": hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:16],
        "window": request.layout.window,
        "latent": list(request.frame_shape),
        "clips": request.call_schedule.samples_per_call,
        "device": device["kind"],
        "devices": device["count"],
    }


def peak_live_bytes(jaxpr: Any) -> int:
    """The largest sum of intermediate values alive at once, bytes, inputs excluded.

    Each value lives from the equation that makes it to the last one that reads it. XLA fuses and
    reorders, so a compiled program mostly needs less.
    """
    last: dict[Any, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        last.update((v, index) for v in equation.invars if not isinstance(v, Literal))
    last.update((v, len(jaxpr.eqns)) for v in jaxpr.outvars if not isinstance(v, Literal))
    dying: dict[int, list[Any]] = {}
    live = most = 0
    for index, equation in enumerate(jaxpr.eqns):
        inner = max((peak_live_bytes(sub) for sub in inner_jaxprs(equation.params)), default=0)
        out = 0
        for value in equation.outvars:
            out += _bytes(value.aval)
            dying.setdefault(last.get(value, index), []).append(value)
        most = max(most, live + max(inner, out))
        live += out
        live -= sum(_bytes(value.aval) for value in dying.pop(index, ()))
    return most


def _bytes(aval: Any) -> int:
    try:
        return int(np.prod(aval.shape, dtype=np.int64)) * jnp.dtype(aval.dtype).itemsize
    except (AttributeError, TypeError):  # a PRNG key, a token
        return 0


def tree_bytes(*trees: Any) -> int:
    """Bytes of all arrays in `trees`, real or abstract."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(trees))
