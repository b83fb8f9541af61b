"""Steps of a loop that calls its network itself: what enters a step is edited where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Step = Callable[..., Any]
    Loop = Callable[[Any, Any], Any]


class DelayedSteps:
    """Hands the steps of a loop over, each when the sample of the next one is seen.

    Parameters
    ----------
    step : callable
        ``Recorder.custom(...).step``, ``Corrector.step``, or what a replay gives.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self.pending: dict[str, Any] | None = None

    def enter(self, x: Tensor, alpha: float, sigma: float) -> None:
        """See the sample that the network is about to be given; an edit is written into it."""
        if self.pending is not None:
            edited = self.step(**self.pending, next_sample=x, next_alpha=alpha, next_sigma=sigma)
            if edited is not None and edited is not x:
                x.copy_(edited)

    def said(
        self, x: Tensor, output: Tensor, alpha: float, sigma: float, kind: str, **more: Any
    ) -> None:
        """Keep what the network said of it."""
        self.pending = {
            "sample": x.clone(),
            "model_output": output,
            "alpha": alpha,
            "sigma": sigma,
            "prediction_type": kind,
            **more,
        }

    def leave(self, end: Tensor) -> Any:
        """The end of the runs."""
        assert self.pending is not None
        return self.step(**self.pending, next_sample=end, next_alpha=1.0, next_sigma=0.0)
