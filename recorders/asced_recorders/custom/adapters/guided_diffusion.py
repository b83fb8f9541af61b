"""guided-diffusion and improved-diffusion: ``p_sample`` and ``ddim_sample`` dictionaries.

>>> steps = diffusion.num_timesteps  # doctest: +SKIP
>>> noise = torch.randn(8, 3, 64, 64)  # doctest: +SKIP
>>> outputs = diffusion.ddim_sample_loop_progressive(  # doctest: +SKIP
...     model, noise.shape, noise=noise, clip_denoised=False)
>>> with Recorder.custom("runs.zarr", noise.shape[1:], steps) as recorder:  # doctest: +SKIP
...     sample = record_progressive(recorder, diffusion, outputs, noise)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from asced_recorders.custom.loop import CustomRecorder
from asced_stores.errors import InputError


def record_progressive(
    recorder: CustomRecorder, diffusion: Any, outputs: Iterable[Mapping[str, Any]], noise: Any
) -> Any:
    """Record what a ``..._sample_loop_progressive`` yields.

    Parameters
    ----------
    recorder : CustomRecorder
        With as many steps as the diffusion has.
    diffusion : GaussianDiffusion or SpacedDiffusion
        Its ``alphas_cumprod`` holds one entry a step.
    outputs : iterable of mapping
        Dictionaries with ``sample`` and ``pred_xstart``. Sample with ``clip_denoised=False``: a
        clipped x0 is not what the network said.
    noise : Tensor, shape (run, channel, y, x)
        The sample that entered the first step.

    Returns
    -------
    Tensor, shape (run, channel, y, x)
        The end of the runs.
    """
    sample = noise
    index = len(diffusion.alphas_cumprod)
    for output in outputs:
        index -= 1
        if index < 0:
            raise InputError("the loop yields more outputs than the diffusion has steps")
        record_output(recorder, diffusion, output, sample, index)
        sample = output["sample"]
    recorder.end(sample)
    return sample


def record_output(
    recorder: CustomRecorder, diffusion: Any, output: Mapping[str, Any], sample: Any, index: int
) -> None:
    """Record one dictionary of ``p_sample`` or ``ddim_sample`` at step `index` of the diffusion."""
    abar = float(diffusion.alphas_cumprod[index])
    recorder.step(
        sample=sample,
        model_output=output["pred_xstart"],
        alpha=abar**0.5,
        sigma=(1 - abar) ** 0.5,
        prediction_type="sample",
        timestep=index,
    )
