"""A batch on a Ray cluster: an actor for each group of devices, which keeps the loaded model.

Videos of equal shapes go to the same actor, so that each shape is compiled once where that is
possible. What an actor that died had in hand goes to another, and goes on from its checkpoint where
that one sees its folder. The markers are those of `syncos batch` without Ray, which may go on with
what Ray has begun, and the other way round.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.runs.generator import Worker, WorkerConfig
from syncos_jax.runs.items import Item
from syncos_jax.runs.markers import DONE, FAILED, PENDING, Markers
from syncos_jax.runs.outputs import Outputs
from syncos_jax.runs.progress import Phases

MAX_ATTEMPTS = 3
"""How often a video may lose its worker before it is given up: it may be what kills them."""
MAX_CHUNK = 8
"""Videos that a worker is given at a time, while it decodes one and samples the next."""

Shape = tuple


def shape_of(item: Item) -> Shape:
    """What decides which program makes an item, as far as the scenario says it: two that are equal
    here share a program, but for rare ones with many more prompts."""
    if item.take is None:
        return ()
    story = item.take.scenario
    settings = {**(story.sampler or {})}
    for name in ("guidance", "learning_rate", "weight_decay"):  # values, not shapes
        settings.pop(name, None)
    frames = sum(event.frames or 0 for event in story.events)
    seconds = sum(event.seconds or 0 for event in story.events)
    more = tuple(sorted((name, str(value)) for name, value in settings.items()))
    return frames, seconds, story.fps, story.size, story.window, story.stride, more


class Queue:
    """The items that are still to be given out, by shape.

    Args:
      items: all of them.
      workers: how many there are.
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
        """The next items for a worker, all of one shape: of one that it knows; else of one that
        nobody knows; else of whichever most are left of."""
        own = self.known.setdefault(worker, set())
        others = set().union(*self.known.values()) - own
        shapes = [shape for shape, items in self.left.items() if items]
        if not shapes:
            return []

        def order(shape: Shape) -> tuple[bool, bool, int]:
            return shape in own, shape not in others, len(self.left[shape])

        shape = max(shapes, key=order)
        own.add(shape)
        items = self.left[shape]
        count = max(1, min(MAX_CHUNK, -(-len(items) // (2 * self.workers))))
        if self.attempts[items[0].name]:  # which of several has killed the worker is not known
            count = 1
        return [items.popleft() for _ in range(min(count, len(items)))]

    def lost(self, worker: int, items: Sequence[Item]) -> list[Item]:
        """Takes back what a worker had that died, to be given out first; returns those that are
        given up."""
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
    """Connects to a Ray cluster, unless this process is connected; returns the module.

    Args:
      address: as `ray.init` has it; ``"auto"`` for the cluster of RAY_ADDRESS or of this machine,
        or where there is none, one that is started here.

    Raises InputError where Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise InputError("`ray`: needs the package ray; pip install 'syncos-jax[ray]'") from None
    if not ray.is_initialized():
        try:
            where = None if address == "auto" else address
            ray.init(address=where, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"`ray={address}`: no such cluster: {error}") from None
    return ray


def resources(ray: Any, devices: int, workers: int | None) -> tuple[dict[str, Any], int]:
    """What each actor needs of the cluster, and how many actors there are.

    GPUs where the cluster has some, else TPU chips; else an actor on each node's CPU.

    Raises InputError where there are not as many devices.
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
            f"`workers`: {workers or 1} of {devices} devices each, but the cluster has room for "
            f"{most}; give fewer"
        )
    return options, count


def make_on_ray(
    work: WorkerConfig,
    items: Sequence[Item],
    phases: Phases,
    address: str = "auto",
    workers: int | None = None,
) -> dict[str, str]:
    """Makes the missing videos of a batch on a Ray cluster.

    Args:
      work: what to make, and how.
      items: of the batch.
      phases: reports progress.
      address: of the cluster (`connect`).
      workers: how many actors; None for as many as its devices allow.

    Returns:
      Why each failed one failed, by name.

    Raises InputError where there is no such cluster or model, or a video was made with other
    settings before.
    """
    ray = connect(address)
    options, count = resources(ray, work.devices, workers)
    count = max(1, min(count, len(items)))
    phases.say(f"{count} workers on Ray, {len(items)} videos")
    # None restarts by itself: until it has, its calls fail, each as if it had died once more.
    actor = ray.remote(max_restarts=0, **options)(Worker)
    markers = Markers(Outputs(work.out, work.work))
    begin = lambda index: actor.remote(work, f"ray {index}")  # noqa: E731
    run = _Run(ray, begin, Queue(items, count), markers, phases.say)
    try:
        with phases.phase("make", "videos") as progress:
            while run.step():
                progress(len(run.results), len(items))
    finally:
        for one in run.actors:
            ray.kill(one)
    statuses = [result["status"] for result in run.results.values()]
    said = ", ".join(f"{statuses.count(name)} {name}" for name in (DONE, FAILED, PENDING))
    phases.say(f"{said}  ({work.out})")
    return {n: r["error"] for n, r in run.results.items() if r["status"] == FAILED}


class _Run:
    """What the actors have in hand, and what has come of the rest."""

    def __init__(
        self,
        ray: Any,
        begin: Callable[[int], Any],
        queue: Queue,
        markers: Markers,
        say: Callable[[str], None],
    ) -> None:
        self.ray = ray
        self.begin = begin
        self.actors = [begin(worker) for worker in range(queue.workers)]
        self.queue = queue
        self.markers = markers
        self.say = say
        self.in_hand: dict[Any, tuple[int, list[Item]]] = {}
        self.results: dict[str, dict[str, Any]] = {}

    def step(self) -> bool:
        """Gives idle actors work and waits a moment for a result; whether anything is left."""
        busy = {worker for worker, _ in self.in_hand.values()}
        for worker in range(len(self.actors)):
            items = self.queue.take(worker) if worker not in busy else []
            if items:
                self.in_hand[self.actors[worker].make.remote(items)] = worker, items
        if not self.in_hand:
            return False
        ready, _ = self.ray.wait(list(self.in_hand), timeout=0.5)
        for result in ready:
            self._take(result, *self.in_hand.pop(result))
        return bool(self.in_hand or len(self.queue))

    def _take(self, result: Any, worker: int, items: list[Item]) -> None:
        try:
            for made in self.ray.get(result):
                self.results[made["name"]] = made
                if made["status"] == FAILED:
                    self.say(f"failed: {made['name']}: {made['error']}")
        except self.ray.exceptions.RayActorError:
            self.say(f"worker {worker} was lost with {len(items)} videos in hand; another goes on")
            self.ray.kill(self.actors[worker])
            self.actors[worker] = self.begin(worker)
            for item in self.queue.lost(worker, items):
                self._give_up(item)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError | OSError):
                raise error.cause from None
            raise

    def _give_up(self, item: Item) -> None:
        error = f"its worker died {MAX_ATTEMPTS} times while it was made"
        fields = {"status": FAILED, "source": item.source, "error": error, "shard": "ray"}
        self.markers.write(item.name, fields)
        self.results[item.name] = {"name": item.name, "status": FAILED, "error": error}
        self.say(f"failed: {item.name}: {error}")
