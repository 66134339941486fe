"""From a scenario to a video: request, latents, frames."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from syncos_jax.errors import InputError
from syncos_jax.media.video import Video
from syncos_jax.models.family import Model
from syncos_jax.pipeline.checkpoint import Checkpoint
from syncos_jax.pipeline.completed_scenario import scenario_of
from syncos_jax.pipeline.known_frames import given_frames, known_frames, none_known
from syncos_jax.pipeline.plan import Plan, make_plan
from syncos_jax.pipeline.request import Request, prepare
from syncos_jax.sampling.devices import default_mesh
from syncos_jax.sampling.known import KnownFrames
from syncos_jax.sampling.memory import choose_batch, reports_memory
from syncos_jax.sampling.own_settings import own_settings
from syncos_jax.sampling.placement import REPLICATED, Parallel, Placement, Rules
from syncos_jax.sampling.run import Progress, Run, VideoProgram, run_to_end
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.sampling import Sampling
from syncos_jax.scenario import Scenario


class Pipeline:
    """Makes videos with a model; ``pipeline(scenario)`` returns a ``Video``.

    Or step by step: ``prepare`` turns a scenario into a request, ``plan`` predicts its cost,
    ``latents`` samples it, ``decode`` and ``video`` turn latents into a video.

    Attributes:
        model: as ``load_model`` returns it.
        placement: the devices.
    """

    @own_settings()
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
            model: as ``load_model`` returns it; its weights are placed on the devices.
            mesh: devices (``make_mesh``) that share the samples of each call and the frames to
                decode; None for JAX's default device.
            parallel: how they are driven: ``"shard_map"`` or ``"pmap"``.
            rules: which mesh axis each array axis is sharded over; ``Rules(feature="model")``
                shards the denoiser's weights.
            batched: make several videos side by side, one for each position on the mesh's axis
                ``data`` (`start_batch`).

        Raises:
            InputError: these do not fit together.
        """
        self.model = model
        self.placement = Placement(mesh or default_mesh(), parallel, rules, batched)
        self.model.place(self.placement)
        self._fits: dict[Any, int | None] = {}
        self._encoded: tuple[Any, Any] = (None, None)
        self._read: Callable[..., Model] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike[str] = "demo",
        dtype: Any = None,
        *,
        lora: Sequence[str] = (),
        mesh: Mesh | None = None,
        parallel: Parallel = "shard_map",
        rules: Rules = REPLICATED,
        batched: bool = False,
    ) -> Pipeline:
        """Loads the built-in model ``"demo"`` or a folder written by ``syncos convert``.

        Args:
            name_or_dir: the name or the folder.
            dtype: of weights and computation; None for bfloat16 on accelerators and float32 on CPU.
            lora: LoRA files to merge into the weights, ``[NETWORK=]FILE[:STRENGTH]`` each.
            mesh, parallel, rules, batched: as for the class.

        Raises:
            InputError: no such model, or a LoRA that does not fit it.
        """
        from syncos_jax.pipeline import load

        where: dict[str, Any] = {} if mesh is None else {"mesh": mesh, "rules": rules}
        read = partial(load.load_model, name_or_dir, dtype, **where)
        with own_settings():
            model = read(lora=lora)
        pipeline = cls(model, mesh=mesh, parallel=parallel, rules=rules, batched=batched)
        pipeline._read = read
        return pipeline

    @own_settings()
    def set_lora(self, lora: Sequence[str]) -> None:
        """Replaces the LoRAs in the model's weights; reads its folder again.

        Args:
            lora: ``[NETWORK=]FILE[:STRENGTH]`` each; none for the model's own weights.

        Raises:
            InputError: a LoRA does not fit the model, which stays; or not made `from_pretrained`.
        """
        from syncos_jax.weights_convert.lora_targets import open_for

        if self._read is None:
            raise InputError("needs a pipeline made by Pipeline.from_pretrained", argument="lora")
        open_for(self.model, lora)
        del self.model  # makes room for the weights that are read
        self.model = self._read(lora=lora)
        self.model.place(self.placement)
        self._fits, self._encoded = {}, (None, None)

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
        **inputs: Any,
    ) -> Video:
        """Makes the video of a scenario.

        Without a scenario: ``pipe("a cat in a kitchen", ["sleeps", "wakes up"], seconds=2)``.
        From a picture: ``pipe(scenario, image="cat.png", audio="purring.mp3")``.

        Args:
            scenario: what the video shows; or a global prompt (what stays the same).
            events: with a global prompt, the local prompts: what happens, in order.
            seconds: length of each of these events; None for two clips.
            sampler: ``SynCoS(...)``, ``CoDenoising(...)``, ...; None for the scenario's, or if it
                has none, SynCoS. Fields that are None take the model's default.
            seed: None for the scenario's.
            progress: called with (calls done, calls in all) during sampling.
            checkpoint: a folder for the run's state, from which the same call resumes after a
                crash; at the end it contains the latents, and is yours to delete. Or an open
                `syncos_jax.pipeline.checkpoint.Checkpoint`.
            **inputs: pictures, clips and sounds in place of the scenario's: ``image``,
                ``end_image``, ``extend``, ``join``, ``redo``, ``reference``, ``fit``, ``audio``,
                ``loop_audio``, as in `Scenario`.

        Raises:
            InputError: the scenario does not fit the model, or the folder holds another run.
        """
        if isinstance(scenario, str):
            scenario = scenario_of(self.model, scenario, events, seconds)
        elif events is not None or seconds is not None:
            raise InputError(
                "`events` and `seconds` go with a global prompt, but a scenario was given",
                place="pipeline",
                remedy="pass settings as sampler=SynCoS(...)",
            )
        request = self.prepare(scenario.with_inputs(**inputs), sampler, seed)
        latents = self.latents(request, None, None, progress, checkpoint)
        return self.video(request, self.decode(latents))

    @own_settings()
    def prepare(
        self, scenario: Scenario, sampler: SamplerConfig | None = None, seed: int | None = None
    ) -> Request:
        """Everything that follows from a scenario, derived once.

        Args:
            scenario, sampler, seed: as in a call.

        Raises:
            InputError: the scenario does not fit the model.
        """
        return prepare(self.model, self.placement, scenario, sampler, seed)

    @own_settings()
    def fitted(self, request: Request) -> Request:
        """The request with as many windows per call as the devices' memory allows.

        That is `request` itself if its settings say how many, if all fit, or if the devices do not
        report their memory (CPUs). What is run and written is always a fitted request.

        Raises:
            InputError: not even one window per device fits.
        """
        given = request.sampler.windows_per_call is not None or self.placement.batched
        if given or not reports_memory(self.placement.mesh):
            return request
        if request.program not in self._fits:
            run = self._run(request)
            windows = choose_batch(run)
            self._encoded = request.conditioning_key, run.inputs.cond
            self._fits[request.program] = None if windows == run.windows else windows
        fewer = self._fits[request.program]
        if fewer is None:
            return request
        sampler = request.sampler.replace(windows_per_call=fewer)
        fitted = self.prepare(request.scenario, sampler, request.seed)
        return dataclasses.replace(fitted, requested=request.sampler)

    @own_settings()
    def plan(
        self,
        request: Request | Scenario,
        sampler: SamplerConfig | None = None,
        seed: int | None = None,
    ) -> Plan:
        """Predicts what a video will consist of and cost; runs nothing.

        Args:
            request: or a scenario, with `sampler` and `seed` as in a call.

        Raises:
            InputError: as a call.
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
        """Samples the scaled latents of the long video, float32 ``[f, h, w, C]``.

        Args:
            request: or a scenario, with `sampler` and `seed` as in a call.
            progress, checkpoint: as in a call.

        Raises:
            InputError, NonFiniteError, DeviceMemoryError: as in a call.
        """
        request = self.fitted(self._request(request, sampler, seed))
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
            return jax.device_put(kept)
        return checkpoint.play(self.start(request), progress)

    def start(
        self,
        request: Request | Scenario,
        sampler: SamplerConfig | None = None,
        seed: int | None = None,
    ) -> Run:
        """The run before its first network call.

        Args:
            request: or a scenario, with `sampler` and `seed` as in a call.
        """
        return self._run(self.fitted(self._request(request, sampler, seed)))

    @own_settings()
    def _run(self, request: Request) -> Run:
        return Run([self._video(request)], self.placement)

    @own_settings()
    def start_batch(self, requests: Sequence[Request]) -> Run:
        """The run of several requests of a `batched` pipeline, side by side: one for each position
        on the mesh's axis ``data``. Their `Request.program` must be equal.

        Raises:
            InputError: the pipeline is not `batched`, or for another number of videos.
        """
        if not self.placement.batched or len(requests) != self.placement.videos:
            raise InputError(
                f"{len(requests)} requests, the pipeline makes {self.placement.videos} at a time",
                place="start_batch",
                remedy="create it with batched=True and a mesh of that many",
            )
        return Run([self._video(request) for request in requests], self.placement)

    def _request(
        self,
        given: Request | Scenario,
        sampler: SamplerConfig | None = None,
        seed: int | None = None,
    ) -> Request:
        if not isinstance(given, Request):
            return self.prepare(given, sampler, seed)
        if sampler is not None or seed is not None:
            raise InputError("a request already has its sampler and its seed", place="pipeline")
        return given

    @own_settings()
    def _video(self, request: Request) -> VideoProgram:
        denoiser = self.model.denoiser_at(request.sampler.boundary)
        sampling = Sampling.of(
            *(denoiser, self.conditioning(request), request.call_schedule),
            params=self.model.params,
            layout=request.layout,
            frame_shape=request.frame_shape,
            schedule=request.schedule,
            sampler=request.sampler,
            known=self._known(request),
            window_cond=self._window_conditioning(request),
        )
        return VideoProgram(sampling, sampling.init(request.key))

    def _known(self, request: Request) -> KnownFrames | None:
        if request.known is None:
            return none_known(request.sampler, request.layout, request.frame_shape, self.model)
        where = request.layout.frames, request.frame_shape[:2], self.placement
        return known_frames(request.known, self.model, *where)

    def _window_conditioning(self, request: Request) -> dict[str, np.ndarray] | None:
        if request.known is None or self.model.known_rule != "condition":
            return None
        cells, reference = request.frame_shape[:2], request.scenario.reference is not False
        given = given_frames(request.known, self.model, request.layout.frames, cells, reference)
        return self.model.window_conditioning(given, request.layout, self.placement, request.key)

    @own_settings()
    def conditioning(self, request: Request) -> Any:
        """The table of conditionings: a pytree with leading axis ``K``, with the rows of
        ``request.prompt_weights``. Equal prompts are encoded once, and those of no row not."""
        prompts = [*request.prompts.prompts, *request.prompts.negatives]
        key = request.conditioning_key
        (encoded, table), self._encoded = self._encoded, (None, None)
        if encoded == key:  # when the request was fitted to the memory
            return table
        used = np.flatnonzero(request.prompt_weights.any(axis=0))
        unique = list(dict.fromkeys(prompts[i] for i in used))
        row = {prompt: index for index, prompt in enumerate(unique)}
        encoded = self.model.encode_prompts(unique)
        index = np.asarray([row.get(prompt, 0) for prompt in prompts])
        each = jax.tree.map(lambda leaf: leaf[index], encoded)
        table = self.model.interpolate_conditioning(each, request.prompt_weights)
        return self.model.complete_conditioning(table, request.fps, request.perturbed)

    @own_settings()
    def decode(
        self,
        latents: jax.Array | np.ndarray,
        batch: int | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Frames uint8 ``[F, H, W, 3]`` of scaled latents.

        Args:
            latents: float32 ``[f, h, w, C]``, as returned by ``latents``.
            batch: frames decoded together; None for the model's default.
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
        """Decoded frames uint8 ``[F, H, W, 3]``, center-cropped to the request's size and cut to
        its length, after the clip that they extend, with frame rate, events, title and sound."""
        request = self._request(request)
        height, width = request.height, request.width
        top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
        frames = frames[: request.sampled, top : top + height, left : left + width]
        return Video(
            frames=frames if request.known is None else request.known.finished(frames),
            fps=request.fps,
            events=tuple(
                (row["start"], row["prompt"] or f"({Path(str(request.scenario.extend)).name})")
                for row in request.spans
            ),
            title=request.scenario.global_prompt,
            sound=request.sound,
        )
