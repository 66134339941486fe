"""The model on its devices: loaded beside the server, one pipeline for each worker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from syncos_jax.errors import InputError
from syncos_jax.media.marking import Marking
from syncos_jax.scenario.variables import MAX_PROMPT
from syncos_jax.studio.api_errors import ApiError, Finding
from syncos_jax.studio.settings import StudioSettings

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline

_log = logging.getLogger(__name__)

WAIT_SECONDS = 10.0
"""How long a request waits for the model before it is asked to retry."""
_FEW_STEPS = 8
_TIMES_LARGER = 2
"""A side of a frame, at most: so many times the model's own larger one."""


class Engine:
    """Loads the model in a thread of its own.

    Attributes:
        error: why it could not be loaded; None while it could.
        failed: called when it could not.
    """

    def __init__(self, settings: StudioSettings) -> None:
        self.settings = settings
        self.error: BaseException | None = None
        self.failed: Callable[[], Any] = lambda: None
        self._pipelines: list[Pipeline] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._load, name="syncos load", daemon=True)

    def start(self) -> None:
        """Begins to load."""
        self._thread.start()

    def _load(self) -> None:
        try:
            self._pipelines = self._open()
        except BaseException as error:
            self.error = error
            if not isinstance(error, InputError):
                _log.exception("the model %s cannot be loaded", self.settings.model)
        finally:
            self._ready.set()
            if self.error is not None:
                self.failed()

    def _open(self) -> list[Pipeline]:
        from syncos_jax.pipeline import Pipeline

        if self.settings.cache:
            from syncos_jax.runs.cache import keep_programs

            keep_programs()
        return [
            Pipeline.from_pretrained(self.settings.model, lora=self.settings.lora, mesh=mesh)
            for mesh in self._meshes()
        ]

    def _meshes(self) -> list[Any]:
        """The devices of each worker."""
        workers, devices = self.settings.workers, self.settings.devices
        if workers == 1 and devices is None and not self.settings.spread:
            return [None]
        import jax

        from syncos_jax.sampling.devices import make_mesh, provide_cpu_devices

        provide_cpu_devices(None if devices is None else workers * devices)
        there = jax.devices()
        each = len(there) // workers if devices is None else devices
        if each < 1 or workers * each > len(there):
            raise InputError(
                argument="workers",
                expected=f"at most {len(there) // max(each, 1)} ({len(there)} devices, "
                f"{max(each, 1)} for each worker)",
                value=workers,
            )
        return [make_mesh(there[i * each : (i + 1) * each]) for i in range(workers)]

    # -- for workers -----------------------------------------------------------------------------

    def wait(self, number: int) -> Pipeline | None:
        """The pipeline of a worker, once it is loaded; None where it cannot be."""
        self._ready.wait()
        return self._pipelines[number] if self.error is None else None

    # -- for requests ----------------------------------------------------------------------------

    @property
    def pipeline(self) -> Pipeline:
        """That of the first worker; raises ApiError while there is none."""
        if not self._ready.wait(WAIT_SECONDS):
            raise ApiError(
                503,
                Finding("the model is still being loaded", "Try again in a moment"),
                {"Retry-After": "5"},
            )
        if self.error is not None:
            raise ApiError(
                503,
                Finding("the model cannot be loaded", "Look at what the server printed"),
                {"Retry-After": "60"},
            )
        return self._pipelines[0]

    @property
    def loaded(self) -> bool:
        """Whether `pipeline` answers at once."""
        return self._ready.is_set()

    @property
    def devices_per_worker(self) -> int:
        """Number of devices that make one take together; 1 until the model is loaded."""
        return self._pipelines[0].placement.mesh.devices.size if self._pipelines else 1

    @cached_property
    def takes_pictures(self) -> bool:
        """Whether videos can begin with, end with or continue given frames."""
        from syncos_jax.models.family import Model

        model = self.pipeline.model
        own = type(model).encode_frames is not Model.encode_frames
        return own and hasattr(getattr(model, "vae", None), "encode")

    @cached_property
    def multiple(self) -> int:
        """What width and height must be divisible by, pixels."""
        geometry = self.pipeline.model.geometry
        return geometry.cell * geometry.multiple

    @cached_property
    def largest(self) -> int:
        """Width and height of a frame, at most, pixels."""
        geometry = self.pipeline.model.geometry
        most = _TIMES_LARGER * max(geometry.width, geometry.height)
        return most - most % self.multiple

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What ``GET /v1/model`` says."""
        model, settings = self.pipeline.model, self.settings
        marking = Marking.from_environment()
        geometry = model.geometry
        return {
            "name": model.name,
            "family": model.family,
            "width": geometry.width,
            "height": geometry.height,
            "fps": geometry.fps,
            "clip_frames": geometry.frames(geometry.window),
            "limits": {
                "events": settings.events,
                "seconds": settings.seconds,
                "takes": settings.takes,
                "prompt_tokens": getattr(getattr(model, "tokenizer", None), "tokens", None),
                "prompt_characters": MAX_PROMPT,
                "picture_bytes": settings.picture_bytes if self.takes_pictures else None,
                "size": {
                    "minimum": self.multiple,
                    "maximum": self.largest,
                    "multiple": self.multiple,
                },
            },
            "defaults": {
                "steps": model.steps,
                "guidance": model.guidance,
                "strength": None,
                "seed": 0,
            },
            "presets": presets(model.steps),
            "vocabulary": vocabulary(model.name),
            "devices": self.devices_per_worker,
            "marking": {
                "signer": marking.identity.name if marking.identity else None,
                "watermark": marking.watermark,
            },
            "rate": settings.rate and {"per_hour": settings.rate, "currency": settings.currency},
        }


def vocabulary(name: str) -> dict[str, list[str]] | None:
    """Words that a model was trained on, by kind; None if they are not few."""
    if name != "demo":
        return None
    from syncos_jax.metrics.world.attributes import COLOURS, SHAPES
    from syncos_jax.metrics.world.words import MOVES, PLACES

    return {
        "colours": list(COLOURS),
        "shapes": list(SHAPES),
        "backgrounds": [words[0] for words in PLACES.values()],
        "motions": [words[0][0] for words in MOVES.values()],
    }


def presets(steps: int) -> list[dict[str, Any]]:
    """Named sets of settings; null stands for the model's own value.

    Four steps are for models made for few steps; others draw noise in so few.

    Args:
        steps: the model's own number of steps.
    """
    none = {"steps": None, "guidance": None, "strength": None}
    more = {"name": "four_steps", "settings": {**none, "steps": 4}}
    if steps > _FEW_STEPS:
        more = {"name": "fast", "settings": {**none, "steps": steps // 3, "strength": 0.5}}
    return [{"name": "published", "settings": none}, more]
