"""A batch on a Ray cluster: one actor for each group of devices, which keeps the loaded model.

Videos of equal shape go to the same actor, so that each shape is compiled as rarely as possible.
The videos of an actor that died go to another one and resume from their checkpoints, where that one
sees the folder. Markers are those of `syncos batch` without Ray; either can continue the other's.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from syncos_jax.errors import Argument, InputError
from syncos_jax.runs.generator import Worker
from syncos_jax.runs.items import Item
from syncos_jax.runs.markers import DONE, FAILED, PENDING, Markers
from syncos_jax.runs.outputs import Outputs
from syncos_jax.runs.progress import Phases
from syncos_jax.runs.worker_config import WorkerConfig

MAX_ATTEMPTS = 3
"""How many workers a video may lose before it is given up: it may be what kills them."""
MAX_CHUNK = 8
"""Videos given to a worker at a time, so that it decodes one while it samples the next."""

Shape = tuple


def shape_of(item: Item) -> Shape:
    """What decides which program makes an item: equal shapes share a program (except for rare
    scenarios with many more prompts)."""
    if item.take is None:
        return ()
    scenario = item.take.scenario
    settings = {**(scenario.sampler or {})}
    for name in ("guidance", "learning_rate", "weight_decay"):  # values, not shapes
        settings.pop(name, None)
    frames = sum(event.frames or 0 for event in scenario.events)
    seconds = sum(event.seconds or 0 for event in scenario.events)
    more = tuple(sorted((name, str(value)) for name, value in settings.items()))
    layout = (scenario.fps, scenario.size, scenario.window, scenario.stride)
    known = any(path != scenario.audio for path in scenario.input_files)
    return frames, seconds, *layout, known, scenario.extend is not None, more


class Queue:
    """The items that are still to be given out, by shape.

    Args:
      items: all of them.
      workers: how many workers there are.
    """

    def __init__(self, items: Sequence[Item], workers: int) -> None:
        self.left: dict[Shape, deque[Item]] = {}
        for item in items:
            self.left.setdefault(shape_of(item), deque()).append(item)
        self.workers = workers
        self.known: dict[int, set[Shape]] = {}
        self.attempts: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(len(items) for items in self.left.values())

    def take(self, worker: int) -> list[Item]:
        """The next items for a worker, all of one shape: one that it has compiled; else one that no
        other has; else the one with the most items left."""
        own = self.known.setdefault(worker, set())
        others = set().union(*self.known.values()) - own
        shapes = [shape for shape, items in self.left.items() if items]
        if not shapes:
            return []
        shape = max(shapes, key=lambda s: (s in own, s not in others, len(self.left[s])))
        own.add(shape)
        items = self.left[shape]
        count = max(1, min(MAX_CHUNK, -(-len(items) // (2 * self.workers))))
        if self.attempts[items[0].name]:  # unknown which of several killed the worker
            count = 1
        return [items.popleft() for _ in range(min(count, len(items)))]

    def lost(self, worker: int, items: Sequence[Item]) -> list[Item]:
        """Takes back the items of a dead worker, to be given out first; returns those given up."""
        self.known[worker] = set()
        given_up = []
        for item in reversed(items):
            self.attempts[item.name] += 1
            if self.attempts[item.name] >= MAX_ATTEMPTS:
                given_up.append(item)
            else:
                self.left[shape_of(item)].appendleft(item)
        return given_up


def connect(address: str) -> Any:
    """Connects to a Ray cluster, unless this process is connected; returns the module `ray`.

    Args:
      address: as for `ray.init`; ``"auto"`` for the cluster of RAY_ADDRESS or of this machine, or
        without one, a new local one.

    Raises:
      InputError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "needs the package ray", argument="ray", remedy="pip install 'syncos-jax[ray]'"
        ) from None
    if not ray.is_initialized():
        try:
            where = None if address == "auto" else address
            ray.init(address=where, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"no such cluster: {error}", argument="ray", value=address) from None
    return ray


def resources(ray: Any, devices: int, workers: int | None) -> tuple[dict[str, Any], int]:
    """The resources that each actor requests, and the number of actors.

    GPUs if the cluster has some, else TPU chips; else one actor on each node's CPU.

    Raises:
      InputError: the cluster has too few devices.
    """
    found = ray.cluster_resources()
    gpus, chips = int(found.get("GPU", 0)), int(found.get("TPU", 0))
    if gpus or chips:
        options: dict[str, Any] = {"num_gpus": devices} if gpus else {"resources": {"TPU": devices}}
        most = (gpus or chips) // devices
    else:
        options = {"num_cpus": 1}
        most = max(1, int(found.get("CPU", 1)))
    count = workers or (most if gpus or chips else sum(n["Alive"] for n in ray.nodes()))
    if count > most:
        raise InputError(
            f"{count} workers of {devices} devices each, but the cluster has room for {most}",
            argument="workers",
            remedy=("pass fewer ", Argument("workers")),
        )
    return options, count


def make_on_ray(
    config: WorkerConfig,
    items: Sequence[Item],
    phases: Phases,
    address: str = "auto",
    workers: int | None = None,
) -> dict[str, str]:
    """Makes the missing videos of a batch on a Ray cluster.

    Args:
      config: what each worker makes, and how.
      items: of the batch.
      phases: reports progress.
      address: of the cluster (`connect`).
      workers: number of actors; None for as many as the cluster's devices allow.

    Returns:
      The errors of the failed ones, by name.

    Raises:
      InputError: no such cluster or model, or a video was made with other settings before.
    """
    ray = connect(address)
    options, count = resources(ray, config.devices, workers)
    count = max(1, min(count, len(items)))
    phases.say(f"{count} workers on Ray, {len(items)} videos")
    # Without Ray's own restarts: until an actor is back, each of its calls would count as a death.
    actor = ray.remote(max_restarts=0, **options)(Worker)
    pool = _Pool(ray, lambda index: actor.remote(config, f"ray {index}"), Queue(items, count))
    pool.say = phases.say
    markers = Markers(Outputs(config.out, config.work))
    try:
        with phases.phase("make", "videos") as progress:
            while pool.step(markers):
                progress(len(pool.results), len(items))
    finally:
        for one in pool.actors:
            ray.kill(one)
    statuses = [result["status"] for result in pool.results.values()]
    counts = ", ".join(f"{statuses.count(name)} {name}" for name in (DONE, FAILED, PENDING))
    phases.say(f"{counts}  ({config.out})")
    return {n: r["error"] for n, r in pool.results.items() if r["status"] == FAILED}


class _Pool:
    """The actors, their videos in hand, and the results so far."""

    def __init__(self, ray: Any, start: Callable[[int], Any], queue: Queue) -> None:
        self.ray = ray
        self.start = start
        self.actors = [start(worker) for worker in range(queue.workers)]
        self.queue = queue
        self.say: Callable[[str], Any] = print
        self.in_hand: dict[Any, tuple[int, list[Item]]] = {}
        self.results: dict[str, dict[str, Any]] = {}

    def step(self, markers: Markers) -> bool:
        """Feeds idle actors and waits a moment for a result; whether anything is left."""
        busy = {worker for worker, _ in self.in_hand.values()}
        for worker in range(len(self.actors)):
            items = self.queue.take(worker) if worker not in busy else []
            if items:
                self.in_hand[self.actors[worker].make.remote(items)] = worker, items
        if not self.in_hand:
            return False
        ready, _ = self.ray.wait(list(self.in_hand), timeout=0.5)
        for result in ready:
            for item in self._take(result, *self.in_hand.pop(result)):
                self._give_up(item, markers)
        return bool(self.in_hand or len(self.queue))

    def _take(self, result: Any, worker: int, items: list[Item]) -> list[Item]:
        """Stores the results of a call; returns the items given up."""
        try:
            for made in self.ray.get(result):
                self.results[made["name"]] = made
                if made["status"] == FAILED:
                    self.say(f"failed: {made['name']}: {made['error']}")
            return []
        except self.ray.exceptions.RayActorError:
            self.say(f"worker {worker} died with {len(items)} videos; another one resumes them")
            self.ray.kill(self.actors[worker])
            self.actors[worker] = self.start(worker)
            return self.queue.lost(worker, items)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError | OSError):
                raise error.cause from None
            raise

    def _give_up(self, item: Item, markers: Markers) -> None:
        error = f"its worker died {MAX_ATTEMPTS} times"
        fields = {"status": FAILED, "source": item.source, "error": error, "shard": "ray"}
        markers.write(item.name, fields)
        self.results[item.name] = {"name": item.name, "status": FAILED, "error": error}
        self.say(f"failed: {item.name}: {error}")
