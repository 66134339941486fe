"""From a scenario to a video: request, latents, frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from syncos_jax.errors import InputError
from syncos_jax.media.video import Video
from syncos_jax.models.family import Model
from syncos_jax.pipeline.checkpoint import Checkpoint
from syncos_jax.pipeline.plan import Plan, make_plan
from syncos_jax.pipeline.request import Request, prepare
from syncos_jax.sampling.memory import choose_batch
from syncos_jax.sampling.placement import REPLICATED, Parallel, Placement, Rules
from syncos_jax.sampling.run import Progress, Run, run_to_end
from syncos_jax.sampling.sampler import VideoProgram, batch_run, default_mesh
from syncos_jax.sampling.sampler import prepare as prepare_part
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.scenario import Scenario


class Pipeline:
    """A model with all that stands around it; ``pipeline(scenario)`` is a ``Video``.

    The steps can be had one by one: ``prepare`` makes a request of a scenario, ``plan`` says what
    it would cost, ``latents`` samples it, ``decode`` and ``video`` make the video of the latents.

    Attributes:
        model: what makes the clips, as ``load_model`` gives it.
        placement: the devices.
    """

    def __init__(
        self,
        model: Model,
        *,
        mesh: Mesh | None = None,
        parallel: Parallel = "shard_map",
        rules: Rules = REPLICATED,
        batched: bool = False,
    ) -> None:
        """
        Args:
            model: as ``load_model`` gives it; its weights are put on the devices.
            mesh: devices (``make_mesh``) that share the clips of each call and the frames to
                decode; None for JAX's default device.
            parallel: how they are driven: ``"shard_map"`` or ``"pmap"``.
            rules: which axis of the mesh each axis of the arrays is split over; with
                ``Rules(feature="model")`` the denoiser's weights are.
            batched: whether several videos are made side by side, as many as the mesh's axis
                ``data`` is long (`start_batch`).

        Raises InputError where these do not fit together.
        """
        self.model = model
        self.placement = Placement(mesh or default_mesh(), parallel, rules, batched)
        self.model.place(self.placement)

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike[str] = "demo",
        dtype: Any = None,
        *,
        mesh: Mesh | None = None,
        parallel: Parallel = "shard_map",
        rules: Rules = REPLICATED,
        batched: bool = False,
    ) -> Pipeline:
        """Loads the built-in model ``"demo"`` or a folder that ``syncos convert`` wrote.

        Args:
            name_or_dir: the name or the folder.
            dtype: in which the networks compute; None for bfloat16 on accelerators and float32
                on CPU.
            mesh, parallel, rules, batched: as for the class.

        Raises InputError where there is no such model.
        """
        from syncos_jax.pipeline import load

        where: dict[str, Any] = {} if mesh is None else {"mesh": mesh, "rules": rules}
        model = load.load_model(name_or_dir, dtype, **where)
        return cls(model, mesh=mesh, parallel=parallel, rules=rules, batched=batched)

    def __call__(
        self,
        scenario: Scenario | str,
        events: Sequence[str] | None = None,
        *,
        seconds: float | None = None,
        sampler: SamplerConfig | None = None,
        seed: int | None = None,
        progress: Progress | None = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    ) -> Video:
        """Makes the video of a scenario.

        ``pipe("a cat in a kitchen", ["sleeps", "wakes up"], seconds=2)`` does without a scenario.

        Args:
            scenario: what it shows; or the global prompt, what is the same all through.
            events: with a global prompt, the local ones: what happens, in order.
            seconds: of each of these events; None for two clips' length.
            sampler: settings (``SynCoS(...)``, ``CoDenoising(...)``); None for the scenario's, or
                where it has none, SynCoS. What they leave open is the model's own.
            seed: None for the scenario's.
            progress: called with (rows done, rows in all) while the sampler runs.
            checkpoint: a folder in which the run keeps its state, so that the same call goes on
                where a process died; at the end it holds the latents, and is yours to delete. Or an
                open `syncos_jax.pipeline.checkpoint.Checkpoint`, which says how often.

        Raises InputError where the scenario does not fit the model, or the folder holds another
        run.
        """
        if isinstance(scenario, str):
            scenario = self._scenario(scenario, events, seconds)
        elif events is not None or seconds is not None:
            raise InputError(
                "pipeline: events and seconds go with a global prompt, but a scenario was given; "
                "give settings as sampler=SynCoS(...)"
            )
        request = self.prepare(scenario, sampler, seed)
        return self.video(
            request, self.decode(self.latents(request, None, None, progress, checkpoint))
        )

    def _scenario(
        self, prompt: str, events: Sequence[str] | None, seconds: float | None
    ) -> Scenario:
        if events is None or isinstance(events, str) or not events:
            raise InputError(
                "pipeline: a global prompt needs events, such as ['sleeps', 'wakes up']"
            )
        geometry = self.model.geometry
        length = 2 * geometry.frames(geometry.window) / geometry.fps if seconds is None else seconds
        rows = [{"prompt": event, "seconds": length} for event in events]
        return Scenario.from_dict({"global": prompt, "events": rows})

    def prepare(
        self, scenario: Scenario, sampler: SamplerConfig | None = None, seed: int | None = None
    ) -> Request:
        """All that follows from a scenario, derived once; arguments as in a call.

        Raises InputError where the scenario does not fit the model.
        """
        return prepare(self.model, self.placement, scenario, sampler, seed)

    def plan(
        self,
        request: Request | Scenario,
        sampler: SamplerConfig | None = None,
        seed: int | None = None,
    ) -> Plan:
        """What making a video would do, and what it would cost; nothing is run. Of a scenario,
        with arguments as in a call; or of a request.

        Raises InputError where the call itself would.
        """
        return make_plan(self._request(request, sampler, seed))

    def latents(
        self,
        request: Request | Scenario,
        sampler: SamplerConfig | None = None,
        seed: int | None = None,
        progress: Progress | None = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    ) -> jax.Array:
        """Samples the long video's scaled latents ``[f, h, w, C]``, of a request or of a scenario;
        arguments as in a call."""
        request = self._request(request, sampler, seed)
        if checkpoint is None:
            run = self.start(request)
            if progress is None:
                run.advance()
            else:
                run_to_end(run, progress=progress)
            return run.latents()
        if not isinstance(checkpoint, Checkpoint):
            with Checkpoint(checkpoint, request.fingerprint) as opened:
                return self.latents(request, progress=progress, checkpoint=opened)
        kept = checkpoint.latents()
        if kept is not None:
            return jnp.asarray(kept)
        return checkpoint.play(self.start(request), progress)

    def start(
        self,
        request: Request | Scenario,
        sampler: SamplerConfig | None = None,
        seed: int | None = None,
    ) -> Run:
        """The run before its first row, of a request or of a scenario; arguments as in a call.

        Where the settings do not say how many windows a call has, and the device has not the memory
        for the number that is usual, it has as many as fit.
        """
        request = self._request(request, sampler, seed)
        run = self._run(request)
        if request.sampler.windows_per_call is not None:
            return run
        windows = choose_batch(run)
        if windows == run.windows:
            return run
        fewer = request.sampler.replace(windows_per_call=windows)
        return self._run(self.prepare(request.scenario, fewer, request.seed))

    def _run(self, request: Request) -> Run:
        part = self._part(request)
        return Run([part.call_schedule], part.carry, part.inputs, part.program, self.placement)

    def start_batch(self, requests: Sequence[Request]) -> Run:
        """The run of several requests of a `batched` pipeline, side by side: one for each place on
        the mesh's axis ``data``. Their `Request.program` must be equal."""
        if not self.placement.batched or len(requests) != self.placement.videos:
            raise InputError(
                f"start_batch: {len(requests)} requests, but the pipeline has places for "
                f"{self.placement.videos}; make it with batched=True and a mesh of that many"
            )
        return batch_run([self._part(request) for request in requests], self.placement)

    def _request(
        self,
        given: Request | Scenario,
        sampler: SamplerConfig | None = None,
        seed: int | None = None,
    ) -> Request:
        if not isinstance(given, Request):
            return self.prepare(given, sampler, seed)
        if sampler is not None or seed is not None:
            raise InputError("pipeline: a request has its sampler and its seed already")
        return given

    def _part(self, request: Request) -> VideoProgram:
        """What plays a request."""
        return prepare_part(
            self.model.denoiser,
            self.conditioning(request),
            request.call_schedule,
            params=self.model.params,
            layout=request.layout,
            frame_shape=request.frame_shape,
            schedule=self.model.schedule,
            sampler=request.sampler,
            key=request.key,
            latents=None,
            step_noise=None,
            axes=self.placement.clip_axes,
        )

    def conditioning(self, request: Request) -> Any:
        """The table of conditionings: a pytree with leading axis ``K``, rows as
        ``request.prompt_weights`` has them. Equal prompts are encoded once."""
        prompts = [*request.prompts.prompts, *request.prompts.negatives]
        unique = list(dict.fromkeys(prompts))
        row = {prompt: index for index, prompt in enumerate(unique)}
        encoded = self.model.encode_prompts(unique)
        index = np.asarray([row[prompt] for prompt in prompts])
        each = jax.tree.map(lambda leaf: leaf[index], encoded)
        return self.model.interpolate_conditioning(each, request.prompt_weights)

    def decode(
        self,
        latents: jax.Array | np.ndarray,
        batch: int | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Frames uint8 ``[F, H, W, 3]`` of scaled latents.

        Args:
            latents: ``[f, h, w, C]``, as ``latents`` gives them.
            batch: frames decoded together; None for as many as suit the model.
            progress: called with (frames done, frames in all).
        """
        host = np.asarray(latents)
        total, done = self.model.geometry.frames(len(host)), 0
        frames: np.ndarray | None = None
        for part in self.model.decode_stream(host, self.placement, batch):
            if frames is None:
                frames = np.empty((total, *part.shape[1:]), np.uint8)
            frames[done : done + len(part)] = part
            done += len(part)
            if progress is not None:
                progress(done, total)
        assert frames is not None and done == total
        return frames

    def video(self, request: Request | Scenario, frames: np.ndarray) -> Video:
        """Decoded ``frames``, cut to the request's length and size (from the middle), with its
        frame rate, events and title."""
        request = self._request(request)
        height, width = request.height, request.width
        top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
        return Video(
            frames=frames[: request.frames, top : top + height, left : left + width],
            fps=request.fps,
            events=tuple((row["start"], row["prompt"]) for row in request.events),
            title=request.scenario.global_prompt,
        )
