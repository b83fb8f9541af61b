"""The sampler of EDM (arXiv:2206.00364, algorithm 1 without churn), recorded.

>>> with Recorder.custom("runs.zarr", latents.shape[1:], 18) as recorder:  # doctest: +SKIP
...     images = edm_sampler(net, latents, recorder=recorder, num_steps=18)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asced_recorders.custom.loop import CustomRecorder

if TYPE_CHECKING:
    from torch import Tensor


def edm_sampler(
    net: Callable[..., Any],
    latents: Tensor,
    *,
    recorder: CustomRecorder,
    num_steps: int = 18,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    **condition: Any,
) -> Tensor:
    """Heun's method on Karras's noise levels; the second evaluation of a step is not recorded.

    Parameters
    ----------
    net : callable
        ``net(x, sigma, **condition)`` returns the denoised sample D, as EDM's preconditioned
        networks do. For the raw network F, record ``prediction_type="edm"`` in a loop of your own.
    latents : Tensor, shape (run, channel, y, x)
        Standard normal noise.
    recorder : CustomRecorder
        With `num_steps` steps.
    num_steps : int
        Noise levels.
    sigma_min, sigma_max, rho : float
        Of equation 5 there.
    **condition
        Passed on to the network.

    Returns
    -------
    Tensor, shape (run, channel, y, x)
    """
    import torch

    index = torch.arange(num_steps, dtype=torch.float64, device=latents.device)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    ramp = index / max(num_steps - 1, 1)
    sigmas = torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1).to(index)])
    x = latents.double() * sigmas[0]
    for i in range(num_steps):
        sigma, following = sigmas[i], sigmas[i + 1]
        denoised = net(x, sigma, **condition).double()
        recorder.step(
            sample=x, model_output=denoised, alpha=1.0, sigma=sigma, prediction_type="sample"
        )
        slope = (x - denoised) / sigma
        step = x + (following - sigma) * slope
        if i < num_steps - 1:
            second = (step - net(step, following, **condition).double()) / following
            step = x + (following - sigma) * (slope + second) / 2
        x = step
    recorder.end(x)
    return x
