"""k-diffusion: its samplers as loops, and a callback that records.

>>> sigmas = k_diffusion.sampling.get_sigmas_karras(20, 0.03, 14.6)  # doctest: +SKIP
>>> loop = sampling_loop(k_diffusion.sampling.sample_euler, model, sigmas)  # doctest: +SKIP
>>> x = torch.randn(8, 4, 64, 64) * sigmas[0]  # doctest: +SKIP
>>> with Recorder.custom("runs.zarr", x.shape[1:], 20) as recorder:  # doctest: +SKIP
...     loop(x, recorder.step)
>>> loop(x, Corrector.from_file("thresholds.json").step)  # doctest: +SKIP
>>> replay("runs.zarr", "again.zarr", loop=loop, strategy="none")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from asced_recorders.custom.adapters.entering import DelayedSteps
from asced_recorders.custom.loop import CustomRecorder
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from asced_recorders.custom.adapters.entering import Loop

EVALUATIONS = {
    "sample_dpm_2": 2,
    "sample_dpm_2_ancestral": 2,
    "sample_dpmpp_2m": 1,
    "sample_dpmpp_2s_ancestral": 2,
    "sample_euler": 1,
    "sample_euler_ancestral": 1,
    "sample_heun": 2,
}
"""Of the network at a step, by sampler; none of these mixes in noise predicted earlier."""


def sampling_loop(
    sampler: Callable[..., Any], model: Callable[..., Any], sigmas: Tensor, **options: Any
) -> Loop:
    """A sampler of k-diffusion as a loop that records, is corrected and is replayed.

    Parameters
    ----------
    sampler : callable
        One of `EVALUATIONS`, of ``k_diffusion.sampling``.
    model : callable
        ``model(x, sigma, **extra_args)`` returns the denoised sample.
    sigmas : Tensor, shape (steps + 1,)
        Falling to 0.
    **options
        Of the sampler.

    Returns
    -------
    callable
        ``loop(x_init, step)``.

    Raises
    ------
    InputError
        For a sampler that remembers earlier noise (``sample_lms``), or has no steps of its own.
    """
    name = getattr(sampler, "__name__", str(sampler))
    if name not in EVALUATIONS:
        raise InputError(
            f"{name} mixes in what the network said before, or walks no fixed levels, so that no "
            f"edit would last: choose one of {', '.join(EVALUATIONS)}"
        )

    def loop(x_init: Any, step: Any) -> Any:
        entering = DelayedSteps(step)
        left = 0  # evaluations of this step that are still to come

        def network(x: Tensor, sigma: Tensor, **extra: Any) -> Any:
            nonlocal left
            level = float(sigma.reshape(-1)[0])
            if left:
                left -= 1
                return model(x, sigma, **extra)
            entering.enter(x, 1.0, level)
            denoised = model(x, sigma, **extra)
            entering.said(x, denoised, 1.0, level, "sample")
            return denoised

        def counted(facts: Mapping[str, Any]) -> None:
            nonlocal left
            last = float(sigmas[int(facts["i"]) + 1]) == 0
            left = 0 if last else EVALUATIONS[name] - 1

        end = sampler(network, x_init.clone(), sigmas, callback=counted, disable=True, **options)
        return entering.leave(end)

    return loop


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
        recorder.levels.churned |= bool(facts.get("sigma_hat", facts["sigma"]) > facts["sigma"])
        recorder.step(
            sample=facts["x"],
            model_output=facts["denoised"],
            alpha=1.0,
            sigma=facts.get("sigma_hat", facts["sigma"]),
            prediction_type="sample",
        )
        return None if also is None else also(facts)

    return callback
