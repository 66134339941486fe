"""The samplers by name, each of which makes `SamplerConfig`."""

from __future__ import annotations

from typing import Any, Literal

from syncos_jax.errors import InputError
from syncos_jax.sampling.sampler_config import (
    STRENGTH,
    SamplerConfig,
    make_sampler,
    strength_settings,
)

__all__ = [
    "FIFO",
    "FULL_STRENGTH",
    "STRENGTH",
    "CoDenoising",
    "FlowLong",
    "FreeNoise",
    "RefinementOnly",
    "SynCoS",
]

FULL_STRENGTH = 1.0


class SynCoS:
    """Synchronized coupled sampling (Kim et al., arXiv 2503.08605): stages 1, 2 and 3.

    ``SynCoS(steps=50, t_min=850, ...)`` makes `SamplerConfig`. The fields are those of
    `CoDenoising`,
    ``fresh_noise_t_min``, and those of `Refinement` (``t_min``, which is 850 where neither it nor
    ``refine_steps`` nor ``refine_snr`` is given, ``iterations``, ``learning_rate``,
    ``weight_decay``, ``windows_per_step``, ``guided_refinement`` and, for the ablations,
    ``grounded_timestep`` and ``fixed_noise``).
    """

    def __new__(cls, **values: Any) -> SamplerConfig:  # type: ignore[misc]
        return make_sampler("syncos", values)

    @classmethod
    def paper(cls, backbone: Literal["cogvideox", "open_sora_plan"] = "cogvideox") -> SamplerConfig:
        """The published settings: 50 steps, eta 0, and of the published ranges (t_min 800 to 900,
        learning rate 0.5 to 1, 20 to 50 iterations) the middle of the first and the low end of the
        others. Guidance is 6 for CogVideoX (with stride 4) and 7.5 for Open-Sora Plan (stride 6).
        """
        guidance = {"cogvideox": 6.0, "open_sora_plan": 7.5}
        if backbone not in guidance:
            raise InputError(
                f"SynCoS.paper: unknown backbone {backbone!r}; one of {', '.join(guidance)}"
            )
        values = {"t_min": 850.0, "iterations": 20, "learning_rate": 0.5}
        return make_sampler("syncos", {"steps": 50, "guidance": guidance[backbone], **values})

    @classmethod
    def at_strength(cls, strength: float = FULL_STRENGTH, **others: Any) -> SamplerConfig:
        """How much synchronisation, as one number; cheap at any of them.

        It sets how long the refinement runs, from the noisiest timestep down to
        ``t_min = 1000 - 400 strength``. Each of these steps takes one optimiser step of a large
        rate on a third of the windows; the published settings take many of a smaller rate on all
        windows, at few early steps. At 1 that is about 1.15 times the network calls of
        co-denoising; docs/synchronisation.md has the measured curve.

        Args:
          strength: 0 (co-denoising, no more) to 1 (full synchronisation).
          **others: settings that it does not decide: ``steps``, ``guidance``, ``batch``, ``eta``.

        Raises:
          InputError: if `strength` is not in 0 .. 1.
        """
        return make_sampler("syncos", {**strength_settings(strength), **others})

    @classmethod
    def dial(cls, strength: float = FULL_STRENGTH, **others: Any) -> SamplerConfig:
        """The older name of `at_strength`."""
        return cls.at_strength(strength, **others)

    @classmethod
    def fast(cls, **others: Any) -> SamplerConfig:
        """`at_strength` at full strength."""
        return cls.at_strength(**others)


class CoDenoising:
    """Temporal co-denoising alone (Gen-L-Video, Wang et al., arXiv 2305.18264).

    Every step predicts all windows, fuses them, and goes on with the noise that DDIM implies.
    Over a video of exactly one window this is plain DDIM. ``CoDenoising(steps=50, ...)`` makes
    `SamplerConfig`; the fields are ``steps``, ``guidance``, ``guidance_t_min``, ``guidance_t_max``,
    ``batch``, ``eta`` and ``solver``.
    """

    def __new__(cls, **values: Any) -> SamplerConfig:  # type: ignore[misc]
        return make_sampler("co_denoising", values)


class RefinementOnly:
    """Stage 2 alone (Collaborative Score Distillation, Kim et al., arXiv 2307.04787).

    The clean latent starts as the initial Gaussian draw and is refined at every timestep.
    ``RefinementOnly(steps=50, ...)`` makes `SamplerConfig`; the fields are those of `SynCoS`
    without
    ``eta`` and what says where the refinement ends.
    """

    def __new__(cls, **values: Any) -> SamplerConfig:  # type: ignore[misc]
        return make_sampler("refinement_only", values)


class FlowLong:
    """Co-denoising with fresh noise while noise is high (FlowLong, Park et al., arXiv 2605.20910).

    Every step predicts all windows and fuses their clean latents. At timesteps above
    ``fresh_noise_t_min`` it goes on with noise that is drawn for it, ``x' = a' x0 + b' z``, which
    frees the windows of what each began with; below with the noise that DDIM (or the ODE solver)
    implies. It costs what co-denoising costs. ``FlowLong(steps=50, ...)`` makes `SamplerConfig`;
    the
    fields are those of `CoDenoising` and ``fresh_noise_t_min`` (600 by default, in units of the
    schedule: our choice, measured in docs/synchronisation.md; we do not know the authors').
    """

    def __new__(cls, **values: Any) -> SamplerConfig:  # type: ignore[misc]
        return make_sampler("flowlong", values)


class FreeNoise:
    """Co-denoising from shuffled noise (FreeNoise, Qiu et al., arXiv 2310.15169, section 3.2).

    Frames beyond the first clip begin with the noise of the clip's frames, each stride of them in a
    new order, so that far windows begin alike. (Their fusion of windows is within the network's
    temporal attention; here windows are fused as clean latents, for any network.)
    ``FreeNoise(steps=50, ...)`` makes `SamplerConfig`; the fields are those of `CoDenoising`.
    """

    def __new__(cls, **values: Any) -> SamplerConfig:  # type: ignore[misc]
        return make_sampler("freenoise", values)


class FIFO:
    """FIFOMethod denoising (FIFO-Diffusion, Kim et al., arXiv 2405.11473).

    A queue holds a run of frames, the first almost clean, the last pure noise, each at a timestep
    of its own. ``FIFO(steps=64, ...)`` makes `SamplerConfig`; the fields are ``steps`` (the queue's
    length), ``guidance``, ``batch``, ``eta`` (1, the authors' default) and ``lookahead``.
    """

    def __new__(cls, **values: Any) -> SamplerConfig:  # type: ignore[misc]
        return make_sampler("fifo", values)
