"""k-diffusion: a callback for its samplers.

>>> sigmas = k_diffusion.sampling.get_sigmas_karras(20, 0.03, 14.6)  # doctest: +SKIP
>>> x = torch.randn(8, 4, 64, 64) * sigmas[0]  # doctest: +SKIP
>>> with Recorder.custom("runs.zarr", x.shape[1:], 20) as recorder:  # doctest: +SKIP
...     end = k_diffusion.sampling.sample_heun(
...         model, x, sigmas, callback=recording_callback(recorder))
...     recorder.end(end)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asced_recorders.custom.loop import CustomRecorder
from asced_stores.errors import InputError


def recording_callback(
    recorder: CustomRecorder, also: Callable[[Mapping[str, Any]], Any] | None = None
) -> Callable[[Mapping[str, Any]], Any]:
    """Make a callback that records each step of a k-diffusion sampler.

    Parameters
    ----------
    recorder : CustomRecorder
        With one step less than there are sigmas, since the last sigma is 0.
    also : callable, optional
        Another callback, called afterwards.

    Returns
    -------
    callable
        Takes the dictionary with ``x``, ``sigma``, ``sigma_hat`` and ``denoised``. Where noise is
        churned in, ``x`` and ``denoised`` belong to ``sigma_hat``.
    """

    def callback(facts: Mapping[str, Any]) -> Any:
        if "error" in facts:
            raise InputError(
                "sample_dpm_adaptive tries steps and takes some back, and its callback is given a "
                "sample and a prediction of different levels: it is not recorded. Take a sampler "
                "with a schedule, for example sample_dpmpp_2m"
            )
        recorder.churned |= bool(facts.get("sigma_hat", facts["sigma"]) > facts["sigma"])
        recorder.step(
            sample=facts["x"],
            model_output=facts["denoised"],
            alpha=1.0,
            sigma=facts.get("sigma_hat", facts["sigma"]),
            prediction_type="sample",
        )
        return None if also is None else also(facts)

    return callback
