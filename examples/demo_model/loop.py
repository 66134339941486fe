"""What all trainings share: optimiser, averaged weights, checkpoints, the log."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

SAVE_SECONDS = 180.0
AVERAGE = 0.999  # decay of the weight average, less at the start


@flax.struct.dataclass
class TrainState:
    """Weights, their average, the optimiser's state and the number of steps done."""

    params: Any
    average: Any
    optimiser: Any
    step: jax.Array


@dataclasses.dataclass(frozen=True)
class Training:
    """One training run.

    Attributes:
        folder: where checkpoints and ``log.jsonl`` go.
        steps: length; the learning rate decays to nothing over the last 30 %.
        rate: peak learning rate.
        loss: ``(params, batch, key) -> scalar``.
        scales: where the weights are a mapping, each entry's share of the learning rate.
        probe: of the averaged weights and the step, figures for the log.
        probe_every: steps between them.
    """

    folder: Path
    steps: int
    rate: float
    loss: Callable[[Any, Any, jax.Array], jax.Array]
    scales: Mapping[str, float] | None = None
    probe: Callable[[Any, int], Mapping[str, float]] | None = None
    probe_every: int = 500

    def optimiser(self) -> optax.GradientTransformation:
        warm, decay = min(300, self.steps // 10), max(1, int(0.3 * self.steps))
        schedule = optax.join_schedules(
            [
                optax.linear_schedule(0.0, self.rate, warm),
                optax.constant_schedule(self.rate),
                optax.cosine_decay_schedule(self.rate, decay, alpha=0.01),
            ],
            [warm, self.steps - decay],
        )
        adam = optax.adamw(schedule, b2=0.99, weight_decay=1e-3)
        if self.scales is not None:
            slower = {name: optax.scale(share) for name, share in self.scales.items()}
            adam = optax.chain(adam, optax.partition(slower, self._labels))
        return optax.chain(optax.clip_by_global_norm(1.0), adam)

    @staticmethod
    def _labels(params: Any) -> Any:
        """Every weight's entry, in the structure of the mapping."""
        return {
            name: jax.tree.map(lambda _, name=name: name, part) for name, part in params.items()
        }

    def run(self, params: Any, batches: Callable[[int], Iterator[Any]], seed: int) -> Any:
        """Train, or go on with what the folder holds.

        Args:
            params: initial weights.
            batches: makes the stream of batches, given the step that it starts at (a resumed run
                should not see again what it has seen).
            seed: of the noise.

        Returns:
            The averaged weights.
        """
        optimiser = self.optimiser()

        def step(state: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, jax.Array]:
            key = jax.random.fold_in(key, state.step)
            loss, grads = jax.value_and_grad(self.loss)(state.params, batch, key)
            with jax.numpy_dtype_promotion("standard"):  # optax mixes float and integer counts
                updates, opt = optimiser.update(grads, state.optimiser, state.params)
                params = optax.apply_updates(state.params, updates)
            count = state.step.astype(jnp.float32)
            decay = jnp.minimum(AVERAGE, (1 + count) / (10 + count))
            average = optax.incremental_update(params, state.average, 1.0 - decay)
            return TrainState(params, average, opt, state.step + 1), loss

        compiled = jax.jit(step, donate_argnums=0)
        # Data parallel over all devices of this process: XLA divides the work by itself.
        mesh = jax.make_mesh((jax.local_device_count(),), ("data",), (AxisType.Auto,))
        everywhere, spread = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
        copy = jax.tree.map(jnp.copy, params)
        state = TrainState(params, copy, optimiser.init(params), jnp.zeros((), jnp.int32))
        state, key = jax.device_put((state, jax.random.key(seed)), everywhere)
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        with ocp.CheckpointManager(self.folder.absolute(), options=options) as saved:
            if saved.latest_step() is not None:
                state = saved.restore(saved.latest_step(), args=ocp.args.StandardRestore(state))
                print(f"resumed at step {int(state.step)}", flush=True)
            done, losses = int(state.step), []
            stream = batches(done)
            saved_at = reported_at = time.monotonic()
            while done < self.steps:
                state, loss = compiled(state, jax.device_put(next(stream), spread), key)
                losses.append(loss)
                done += 1
                now = time.monotonic()
                last = done == self.steps
                if last or done % 100 == 0:
                    mean = float(jnp.stack(losses).mean())
                    rate = len(losses) / (now - reported_at)
                    self._log(step=done, loss=mean, steps_per_second=rate)
                    losses, reported_at = [], time.monotonic()
                if self.probe is not None and (last or done % self.probe_every == 0):
                    self._log(step=done, **self.probe(state.average, done))
                if last or now - saved_at > SAVE_SECONDS:
                    saved.save(done, args=ocp.args.StandardSave(state))
                    saved_at = now
        return state.average

    def _log(self, **values: float) -> None:
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(values) + "\n")
        print("  ".join(f"{k} {v:.5g}" for k, v in values.items()), flush=True)
