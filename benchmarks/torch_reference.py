"""What one would write in PyTorch instead: diffusers' UNet under plain loops.

Co-denoising and SynCoS over ``UNet3DConditionModel``, with nothing of ours in it: the schedule is
diffusers', the optimiser torch's. Given the same starting noise and baseline noise as
``syncos_jax``, it has to arrive at the same latents (``benchmarks/compare.py``,
``tests/test_bench_torch.py``).

Layout is PyTorch's: ``C F H W``. Windows of a call are batched, as a careful author would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet3DConditionModel

Network = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Problem:
    """A long video to sample.

    Attributes:
        starts: first frame of each window.
        window: frames of a window.
        steps: denoising steps.
        guidance: scale.
        batch: windows in one call of the network.
        text, no_text: conditioning and negative conditioning of each window, ``[N, S, D]``.
    """

    starts: Sequence[int]
    window: int
    steps: int
    guidance: float
    batch: int
    text: torch.Tensor
    no_text: torch.Tensor


@dataclass(frozen=True)
class Coupling:
    """SynCoS' refinement, on all windows.

    Attributes:
        t_min: refine at timesteps above.
        iterations, learning_rate, weight_decay: of AdamW.
        noise: baseline noise of each step ``[steps, C, F, H, W]``.
    """

    t_min: float
    iterations: int
    learning_rate: float
    weight_decay: float
    noise: torch.Tensor


def load_unet(
    folder: Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    compiled: str | None = None,
) -> Network:
    """diffusers' UNet from a pipeline's folder (attention is torch's SDPA, diffusers' default).

    Args:
        folder: the pipeline's.
        device, dtype: where and in what it computes.
        channels_last: ``torch.channels_last`` for the weights of its 2-D convolutions and
            ``channels_last_3d`` for those of the temporal ones.
        compiled: a mode of ``torch.compile``, such as "default" or "max-autotune"; None: eager.
    """
    unet = UNet3DConditionModel.from_pretrained(
        str(folder / "unet"), torch_dtype=dtype, low_cpu_mem_usage=False
    )
    unet = unet.to(device).eval().requires_grad_(False)
    if channels_last:
        for module in unet.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.to(memory_format=torch.channels_last)
            elif isinstance(module, torch.nn.Conv3d):
                module.to(memory_format=torch.channels_last_3d)
    network: Any = unet if compiled is None else torch.compile(unet, mode=compiled)

    def predict(x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return network(x.to(dtype), t, text.to(dtype)).sample.float()

    return predict


class Sampler:
    """The loops; ``scheduler`` is the folder's."""

    def __init__(self, network: Network, folder: Path, problem: Problem) -> None:
        self.network = network
        self.problem = problem
        scheduler = DDIMScheduler.from_pretrained(str(folder / "scheduler"))
        scheduler.set_timesteps(problem.steps)
        self.timesteps = scheduler.timesteps.tolist()
        self.cumulated = scheduler.alphas_cumprod.double()
        self.final = float(scheduler.final_alpha_cumprod)
        self.prediction = scheduler.config.prediction_type

    @torch.inference_mode()
    def co_denoise(self, x: torch.Tensor) -> torch.Tensor:
        """Temporal co-denoising of ``x [C, F, H, W]``."""
        for i in range(len(self.timesteps)):
            x = self._step(i, x, None)
        return x

    def syncos(self, x: torch.Tensor, coupling: Coupling) -> torch.Tensor:
        """Synchronized coupled sampling of ``x [C, F, H, W]``."""
        for i in range(len(self.timesteps)):
            x = self._step(i, x, coupling)
        return x

    def _step(self, i: int, x: torch.Tensor, coupling: Coupling | None) -> torch.Tensor:
        t = self.timesteps[i]
        a, b = self._rates(t)
        last = i == len(self.timesteps) - 1
        a_next, b_next = self._rates(None if last else self.timesteps[i + 1])
        with torch.inference_mode():
            x0, _ = self._predict(self._windows(x), t, a, b)
            x0 = self._fuse(x0)
            if coupling is None or t <= coupling.t_min:
                return a_next * x0 + b_next * (x - a * x0) / b
        noise = coupling.noise[i]
        return a_next * self._refine(x0, noise, t, a, b, coupling) + b_next * noise

    def _refine(
        self, x0: torch.Tensor, noise: torch.Tensor, t: int, a: float, b: float, coupling: Coupling
    ) -> torch.Tensor:
        clean = torch.nn.Parameter(x0.clone())
        optimiser = torch.optim.AdamW(
            [clean], lr=coupling.learning_rate, weight_decay=coupling.weight_decay
        )
        for _ in range(coupling.iterations):
            with torch.inference_mode():
                windows = self._windows(a * clean + b * noise)
                predicted = self._predict(windows, t, a, b)[1]
                gradient = self._fuse(_collaborate(windows, predicted - self._windows(noise), b))
            clean.grad = gradient.clone()
            optimiser.step()
        return clean.detach()

    def _rates(self, t: int | None) -> tuple[float, float]:
        alpha = self.final if t is None else float(self.cumulated[t])
        return alpha**0.5, (1 - alpha) ** 0.5

    def _windows(self, x: torch.Tensor) -> torch.Tensor:
        w = self.problem.window
        return torch.stack([x[:, start : start + w] for start in self.problem.starts])

    def _fuse(self, windows: torch.Tensor) -> torch.Tensor:
        p = self.problem
        frames = p.starts[-1] + p.window
        total = windows.new_zeros(windows.shape[1], frames, *windows.shape[3:])
        count = windows.new_zeros(1, frames, 1, 1)
        for start, window in zip(p.starts, windows, strict=True):
            total[:, start : start + p.window] += window
            count[:, start : start + p.window] += 1
        return total / count

    def _predict(
        self, windows: torch.Tensor, t: int, a: float, b: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Clean latents and noises of all windows, guided; ``batch`` windows a call."""
        p = self.problem
        parts = []
        for k in range(0, len(windows), p.batch):
            x = windows[k : k + p.batch]
            text = torch.cat([p.text[k : k + p.batch], p.no_text[k : k + p.batch]])
            time = torch.full((2 * len(x),), t, device=x.device)
            guided, unguided = self.network(torch.cat([x, x]), time, text).chunk(2)
            parts.append(unguided + p.guidance * (guided - unguided))
        value = torch.cat(parts)
        if self.prediction == "epsilon":
            return (windows - b * value) / a, value
        if self.prediction == "v_prediction":
            return a * windows - b * value, b * windows + a * value
        return value, (windows - a * value) / b


def _collaborate(x: torch.Tensor, s: torch.Tensor, b: float) -> torch.Tensor:
    """Stein variational gradient over windows (arXiv 2307.04787)."""
    count = len(x)
    flat, score = x.flatten(1), s.flatten(1)
    difference = flat[:, None] - flat[None]
    distance = difference.square().sum(-1)
    h = distance.flatten().quantile(0.5) / torch.log(torch.tensor(count + 1.0))
    h = torch.where(h > 0, h, torch.ones_like(h))
    kernel = torch.exp(-distance / h)
    repulsion = (-2 / h) * (kernel[..., None] * difference).sum(1)
    return (b**2 / count * (kernel @ score + repulsion)).reshape(x.shape)
