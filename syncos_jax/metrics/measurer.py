"""The measures of a video that networks are needed for, each with what it was measured by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from syncos_jax.metrics import offline, vbench
from syncos_jax.metrics.flow import dis_dynamic_degree
from syncos_jax.metrics.networks import read
from syncos_jax.metrics.networks.clip import CLIP, CLIPConfig
from syncos_jax.metrics.prompts import Prompts
from syncos_jax.metrics.similarity import consistency
from syncos_jax.metrics.sources import Sources
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.vit import ViTConfig


@dataclasses.dataclass(frozen=True)
class Measured:
    """One value.

    Attributes:
        name: of the measure, for programs.
        title: of the measure, in tables; says what it is by.
        value: the number.
        by: ``"vbench"`` (formula, network and pre-processing are VBench's), ``"formula"`` (VBench's
            formula over another network), ``"clip"`` (CLIP score, not of VBench) or ``"stand-in"``.
        better: 1 where more is better, -1 where less is.
        says: what it is.
    """

    name: str
    title: str
    value: float
    by: str
    better: int
    says: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


class Measurer:
    """Measures videos with networks, which are read once, when first needed.

    Args:
        sources: which, and where they lie.
    """

    def __init__(self, sources: Sources):
        self.sources = sources
        self._name_features: dict[int, np.ndarray] = {}

    def __call__(
        self, frames: np.ndarray, fps: float, prompts: Prompts | None = None
    ) -> list[Measured]:
        """All measures that the sources allow.

        Args:
            frames: uint8 ``[F, H, W, 3]``, as they are in the file.
            fps: frames per second.
            prompts: what they should show; without, nothing is measured of them.

        Raises:
            InputError: a folder or file that cannot be read, prompts that do not fit the frames.
        """
        if prompts is not None:
            prompts.check(len(frames))
        sources, out = self.sources, list[Measured]()
        if sources.dino is not None:
            out.append(self._subject(frames))
        if sources.clip is not None:
            out += self._of_clip(frames, prompts)
        if sources.aesthetic is not None:
            out.append(self._aesthetic(frames))
        if sources.lite0 is not None:
            out += self._of_lite0(frames, prompts)
        if sources.flow and min(frames.shape[1:3]) >= 16:
            out.append(_flow(frames, fps))
        return out

    # -- networks ------------------------------------------------------------------------------

    @cached_property
    def _dino(self) -> Any:
        assert self.sources.dino is not None
        return read.read_vit(self.sources.dino)

    @cached_property
    def _clip(self) -> CLIP:
        assert self.sources.clip is not None
        return read.read_clip(self.sources.clip)

    @cached_property
    def _tokenizer(self) -> PromptTokenizer:
        assert self.sources.clip is not None
        return PromptTokenizer(self.sources.clip, self._clip.config.text.tokens)

    @cached_property
    def _large(self) -> CLIP:
        path = self.sources.clip_large
        return self._clip if path is None else read.read_clip(path)

    @cached_property
    def _head(self) -> tuple[Any, Any]:
        assert self.sources.aesthetic is not None
        return read.read_linear_head(self.sources.aesthetic, self._large.config.features)

    @cached_property
    def _lite0(self) -> Any:
        assert self.sources.lite0 is not None
        return read.read_lite0(self.sources.lite0)

    @cached_property
    def _sentences(self) -> offline.Sentences:
        assert self.sources.minilm is not None
        return offline.Sentences(self.sources.minilm)

    @cached_property
    def _names(self) -> list[str]:
        assert self.sources.names is not None
        return offline.class_names(self.sources.names)

    @cached_property
    def _distractors(self) -> np.ndarray:
        return self._sentences(offline.DISTRACTORS)

    # -- measures ------------------------------------------------------------------------------

    def _subject(self, frames: np.ndarray) -> Measured:
        config = self._dino.config
        same = _like(config, ViTConfig.dino_vitb16())
        kind = "DINOv2" if config.layer_scale else "DINO"
        name = f"{kind} {_size(config)}"
        return Measured(
            "subject_consistency",
            f"subject consistency ({'VBench' if same else 'VBench formula'}, {name})",
            consistency(vbench.dino_features(self._dino, frames)),
            "vbench" if same else "formula",
            1,
            f"{name}'s class token: each frame with the last and with the first",
        )

    def _of_clip(self, frames: np.ndarray, prompts: Prompts | None) -> list[Measured]:
        config = self._clip.config
        same = _like(config.vision, CLIPConfig.vitb32().vision)
        name = f"CLIP {_size(config.vision)}"
        features = vbench.clip_features(self._clip, frames)
        out = [
            Measured(
                "background_consistency",
                f"background consistency ({'VBench' if same else 'VBench formula'}, {name})",
                consistency(features),
                "vbench" if same else "formula",
                1,
                f"{name}'s image features: each frame with the last and with the first",
            )
        ]
        return out + _prompt_measures(
            prompts,
            lambda texts: vbench.clip_text_features(self._clip, self._tokenizer, texts),
            lambda texts: vbench.fidelity(features, texts),
            "prompt_fidelity",
            f"prompt fidelity ({name})",
            "clip",
            f"mean cosine of {name}'s image and prompt features",
        )

    def _aesthetic(self, frames: np.ndarray) -> Measured:
        config = self._large.config
        weight, bias = self._head
        same = _like(config.vision, CLIPConfig.vitl14().vision)
        name = f"CLIP {_size(config.vision)}"
        features = vbench.clip_features(self._large, frames)
        return Measured(
            "aesthetic_quality",
            f"aesthetic quality ({'VBench' if same else 'VBench formula'}, {name})",
            vbench.aesthetic_quality(features, np.asarray(weight), float(bias)),
            "vbench" if same else "formula",
            1,
            f"the given linear head over {name}'s image features, a tenth of its mean",
        )

    def _of_lite0(self, frames: np.ndarray, prompts: Prompts | None) -> list[Measured]:
        features, probabilities = offline.lite0_features(self._lite0, frames)
        out = [
            Measured(
                "picture_consistency_lite0",
                "picture consistency (stand-in, EfficientNet-lite0)",
                consistency(features),
                "stand-in",
                1,
                "VBench's consistency formula over EfficientNet-lite0's pooled features",
            )
        ]
        if self.sources.minilm is None or prompts is None:
            return out
        seen = offline.conse(probabilities, self._features_of_names(probabilities))

        def ranks(texts: np.ndarray) -> float:
            if len(texts) == 1:
                return offline.prompt_rank(seen, texts[0], self._distractors)
            assert prompts is not None
            return float(
                np.mean(
                    [
                        offline.prompt_rank(seen[start:stop], texts[start], self._distractors)
                        for start, stop, _ in prompts.events
                    ]
                )
            )

        among = 1 + len(offline.DISTRACTORS)
        return out + _prompt_measures(
            prompts,
            self._sentences,
            ranks,
            "prompt_rank",
            f"prompt's rank of {among} (stand-in, ConSE)",
            "stand-in",
            f"place of the prompt among {among} by ConSE over EfficientNet-lite0 and MiniLM",
            better=-1,
        )

    def _features_of_names(self, probabilities: np.ndarray) -> np.ndarray:
        """``[K, D]``, of the likeliest classes; the others, which nobody reads, are zeros."""
        wanted = {int(k) for k in np.unique(offline.likeliest(probabilities))}
        missing = sorted(wanted - set(self._name_features))
        if missing:
            found = self._sentences([self._names[k] for k in missing])
            self._name_features |= dict(zip(missing, found, strict=True))
        first = next(iter(self._name_features.values()))
        out = np.zeros((probabilities.shape[1], len(first)), np.float32)
        for k in wanted:
            out[k] = self._name_features[k]
        return out


def _prompt_measures(
    prompts: Prompts | None,
    encode: Callable[[list[str]], np.ndarray],
    value: Callable[[np.ndarray], float],
    name: str,
    title: str,
    by: str,
    says: str,
    better: int = 1,
) -> list[Measured]:
    """A measure of the global prompt and one of the local prompts, each frame with its event's."""
    out: list[Measured] = []
    if prompts is None:
        return out
    if prompts.overall:
        of_all = value(encode([prompts.overall]))
        description = f"{says}; of the global prompt with all frames"
        out.append(Measured(f"global_{name}", f"global {title}", of_all, by, better, description))
    texts = encode([prompt for _, _, prompt in prompts.events])
    lengths = [stop - start for start, stop, _ in prompts.events]
    each = value(np.repeat(texts, lengths, axis=0))
    description = f"{says}; of each event's prompt with its frames"
    out.append(Measured(f"local_{name}", f"local {title}", each, by, better, description))
    return out


def _flow(frames: np.ndarray, fps: float) -> Measured:
    return Measured(
        "dynamic_degree_flow",
        "dynamic degree (VBench rule, OpenCV DIS flow)",
        float(dis_dynamic_degree(frames, fps)),
        "formula",
        1,
        "whether the video moves, by VBench's rule over OpenCV's DIS flow in place of RAFT's",
    )


def _like(config: ViTConfig, published: ViTConfig) -> bool:
    """Whether a network has a published one's sizes (the epsilon and the pooler may differ)."""
    return published == dataclasses.replace(
        config, eps=published.eps, pooler=0, position_offset=published.position_offset
    )


def _size(config: ViTConfig) -> str:
    """``ViT-B/16``, or its width where it has no letter."""
    letters = {384: "S", 768: "B", 1024: "L", 1280: "H", 1536: "g"}
    return f"ViT-{letters.get(config.features, config.features)}/{config.patch}"
