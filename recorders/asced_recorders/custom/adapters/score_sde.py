"""Models that return a score, as those of score-based SDEs do (arXiv:2011.13456).

>>> with Recorder.custom("runs.zarr", x.shape[1:], len(times)) as recorder:  # doctest: +SKIP
...     for t in times:
...         score = model(x, t)
...         record_score(recorder, sde, x, score, t)
...         x = update(x, score, t)
...     recorder.end(x)
"""

from __future__ import annotations

from typing import Any

from asced_recorders.custom.loop import CustomRecorder


def record_score(recorder: CustomRecorder, sde: Any, sample: Any, score: Any, time: Any) -> None:
    """Record one step of a score model.

    Parameters
    ----------
    recorder : CustomRecorder
    sde : object
        With ``marginal_prob(x, t) -> (mean, std)``, the mean being a multiple of ``x``.
    sample : Tensor, shape (run, channel, y, x)
        What the network saw.
    score : Tensor, of the shape of `sample`
        Gradient of the log-density.
    time : float or Tensor
        Of the SDE, the same for all runs.
    """
    import torch

    told = float(torch.as_tensor(time).reshape(-1)[0])
    one = torch.ones(1, *[1] * (sample.ndim - 1))
    mean, std = sde.marginal_prob(one, torch.full((1,), told))
    recorder.step(
        sample=sample,
        model_output=score,
        alpha=mean,
        sigma=std,
        prediction_type="score",
        timestep=told,
    )
