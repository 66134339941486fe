"""Samples the groups of a batch one after another while encoding the prompts of the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from syncos_jax.runs.throughput import SamplerUtilisation

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.pipeline.checkpoint import Checkpoint
    from syncos_jax.pipeline.request import Request
    from syncos_jax.sampling.run import Progress, Run


class SamplerThread:
    """Samples the runs of a batch.

    Args:
      pipeline: that samples.
      utilisation: counts the time spent sampling.

    Attributes:
      lock: held while sampling.
    """

    def __init__(self, pipeline: Pipeline, utilisation: SamplerUtilisation) -> None:
        self.pipeline = pipeline
        self.utilisation = utilisation
        self.lock = threading.Lock()
        self._side_by_side = pipeline.placement.videos
        self._compiled: set[Any] = set()
        self._pool = ThreadPoolExecutor(1, "syncos next run")
        self._next: tuple[Sequence[Request], Future[Run]] | None = None

    def latents(
        self,
        requests: Sequence[Request],
        checkpoint: Checkpoint,
        progress: Progress,
        then: Sequence[Request] = (),
    ) -> Any:
        """Latents float32 ``[f, h, w, C]``, or of videos side by side ``[V, f, h, w, C]``.

        Args:
          requests: of a group.
          checkpoint: from which it resumes.
          progress: as for `run_to_end`.
          then: the next group, if its prompts are to be encoded meanwhile.
        """
        saved = checkpoint.latents()
        if saved is not None:
            return saved
        first: list[float] = []

        def watched(done: int, total: int) -> None:
            if not first:  # before, this run's program may have been compiling
                first.append(time.monotonic())
                if then:
                    self._next = then, self._pool.submit(partial(self._start, then))
            progress(done, total)

        with self.lock:
            run = self._run(requests)
            latents = checkpoint.play(run, watched)
        program = requests[0].program
        if first and run.dispatched is not None and run.played is not None:
            self.utilisation.add(
                run.dispatched, first[0], run.played, program not in self._compiled
            )
        self._compiled.add(program)
        return latents if self._side_by_side == 1 else np.asarray(latents)

    def _run(self, requests: Sequence[Request]) -> Run:
        ahead, self._next = self._next, None
        if ahead is not None and list(ahead[0]) == list(requests):
            return ahead[1].result()
        return self._start(requests)

    def _start(self, requests: Sequence[Request]) -> Run:
        if self._side_by_side == 1:
            return self.pipeline.start(requests[0])
        # The last one again if the group has fewer videos.
        filled = [requests[min(index, len(requests) - 1)] for index in range(self._side_by_side)]
        return self.pipeline.start_batch(filled)
