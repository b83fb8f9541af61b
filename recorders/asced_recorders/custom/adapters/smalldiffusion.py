"""smalldiffusion: its ``samples`` as a loop.

>>> loop = sampling_loop(smalldiffusion.samples, model, sigmas)  # doctest: +SKIP
>>> x = model.rand_input(8) * sigmas[0]  # doctest: +SKIP
>>> with Recorder.custom("runs.zarr", x.shape[1:], len(sigmas) - 1) as r:  # doctest: +SKIP
...     loop(x, r.step)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asced_recorders.custom.adapters.entering import DelayedSteps
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from asced_recorders.custom.adapters.entering import Loop


def sampling_loop(
    samples: Callable[..., Any], model: Any, sigmas: Any, *, gam: float = 1.0, **options: Any
) -> Loop:
    """The package's sampler, from a start that is given.

    Parameters
    ----------
    samples : callable
        ``smalldiffusion.samples``.
    model : ModelMixin
        Predicts noise in sigma space.
    sigmas : Tensor, shape (steps + 1,)
    gam : float
        1: with another one a step goes by earlier predictions of the noise, and no edit lasts.
    **options
        Of the sampler (``mu``, ``cfg_scale``, ``cond``, ``accelerator``).

    Returns
    -------
    callable
        ``loop(x_init, step)``.

    Raises
    ------
    InputError
        For another gam than 1.
    """
    if gam != 1:
        raise InputError(
            f"with gam {gam} a step mixes in the noise predicted before, so that no edit would "
            "last: sample with gam 1"
        )

    def loop(x_init: Any, step: Any) -> Any:
        entering = DelayedSteps(step)
        real = model.predict_eps_cfg

        def predict(x: Any, sigma: Any, *rest: Any) -> Any:
            level = float(sigma.reshape(-1)[0])
            entering.enter(x, 1.0, level)
            eps = real(x, sigma, *rest)
            entering.said(x, eps, 1.0, level, "epsilon")
            return eps

        model.predict_eps_cfg = predict
        try:
            *_, end = samples(model, sigmas, gam=gam, xt=x_init.clone(), **options)
        finally:
            del model.predict_eps_cfg
        return entering.leave(end)

    return loop
