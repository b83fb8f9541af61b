"""azula: its samplers as loops.

>>> sampler = azula.sample.DDIMSampler(denoiser, steps=25)  # doctest: +SKIP
>>> loop = sampling_loop(sampler)  # doctest: +SKIP
>>> x = sampler.init((8, 3, 64, 64))  # doctest: +SKIP
>>> with Recorder.custom("runs.zarr", x.shape[1:], 25) as recorder:  # doctest: +SKIP
...     loop(x, recorder.step)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_recorders.custom.adapters.entering import Loop

ONE_STEP = ("DDPMSampler", "DDIMSampler", "EulerSampler", "HeunSampler")
"""Samplers whose step goes by the sample alone."""


def sampling_loop(sampler: Any, **options: Any) -> Loop:
    """A sampler as a loop that records, is corrected and is replayed.

    Parameters
    ----------
    sampler : azula.sample.Sampler
        One of `ONE_STEP`.
    **options
        Of its call.

    Returns
    -------
    callable
        ``loop(x_init, step)``.

    Raises
    ------
    InputError
        For a sampler that remembers what was predicted at earlier steps.
    """
    name = type(sampler).__name__
    if name not in ONE_STEP:
        raise InputError(
            f"{name} may mix in what was predicted at earlier steps, so that no edit would last: "
            f"choose one of {', '.join(ONE_STEP)}"
        )

    def loop(x_init: Any, step: Any) -> Any:
        real, said = sampler.step, []
        hook = sampler.denoiser.register_forward_hook(
            lambda _, __, output: said.append(output.mean)
        )

        def observed(x: Any, t: Any, s: Any, **rest: Any) -> Any:
            said.clear()
            following = real(x, t, s, **rest)
            (alpha, sigma), after = (sampler.denoiser.schedule(time) for time in (t, s))
            return step(
                sample=x,
                model_output=said[0],
                alpha=alpha,
                sigma=sigma,
                prediction_type="sample",
                next_sample=following,
                next_alpha=after[0],
                next_sigma=after[1],
                timestep=float(t),
            )

        sampler.step = observed
        try:
            return sampler(x_init, **options)
        finally:
            del sampler.step
            hook.remove()

    return loop
