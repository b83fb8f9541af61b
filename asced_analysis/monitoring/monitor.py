"""A monitor: fills metrics from what a corrector or a recorder saw."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock, local
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.drift import FEWEST, two_sample
from asced_analysis.monitoring.metrics import metrics_of
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from asced_analysis.thresholds.document import Thresholds

TENTHS = 10


class Monitor:
    """Prometheus metrics of the runs that a server samples.

    Give it to a corrector, ``Corrector(thresholds, monitor=monitor)``, or to a recorder,
    ``Recorder(pipe, store, observers=[monitor])``.

    Parameters
    ----------
    thresholds : Thresholds
        Their shipped counts are what scores are compared with.
    name : str, optional
        Value of the label ``monitor``; by default the pipeline that the thresholds name. Monitors
        of one name add up.
    registry : CollectorRegistry, optional
        By default that of prometheus_client.
    latest : int
        Scores that the drift metrics compare with the calibration's, the latest ones.
    override : bool
        Of a recorder: use the thresholds although they were calibrated on something else.

    Raises
    ------
    InputError
        Where prometheus_client is not installed, or `latest` is below 20.

    Examples
    --------
    >>> from prometheus_client import CollectorRegistry, generate_latest
    >>> from asced_analysis import Corrector, Thresholds
    >>> from asced_analysis.monitoring import Monitor
    >>> from asced_recorders import load_pipeline
    >>> pipe = load_pipeline("fashion")
    >>> pipe.set_progress_bar_config(disable=True)
    >>> thresholds, registry = Thresholds.load("thresholds.json"), CollectorRegistry()
    >>> corrector = Corrector(thresholds, monitor=Monitor(thresholds, registry=registry))
    >>> with corrector.attach(pipe):
    ...     images = pipe(batch_size=2, num_inference_steps=12, output_type="np").images
    >>> b'asced_images_total{monitor="fashion"} 2.0' in generate_latest(registry)
    True
    """

    def __init__(
        self,
        thresholds: Thresholds,
        *,
        name: str | None = None,
        registry: CollectorRegistry | None = None,
        latest: int = 500,
        override: bool = False,
    ) -> None:
        if latest < FEWEST:
            raise InputError(f"latest is {latest}; a drift metric needs at least {FEWEST} scores")
        self.thresholds, self.override = thresholds, override
        self.name = name or str(thresholds.fingerprint.get("pipeline") or "custom")
        self.registry, self.metrics = metrics_of(registry)
        self._latest: deque[float] = deque(maxlen=latest)
        self._lock = Lock()
        self._call = local()
        self._limits = _tenths(thresholds.counts)
        of, kept = self.metrics, thresholds.guarantee
        for counter in (of.images, of.flagged, of.failed, of.edited):
            counter.labels(self.name)
        for tenth in range(TENTHS if self._limits is not None else 0):
            of.scores.labels(self.name, str(tenth))
        of.level.labels(self.name).set(thresholds.levels.level)
        of.promised.labels(self.name).set(kept.promised)
        of.compared.labels(self.name).set_function(lambda: len(self._latest))
        of.distance.labels(self.name).set_function(lambda: self.drift()[0])
        of.p_value.labels(self.name).set_function(lambda: self.drift()[1])

    def count(
        self,
        scores: Sequence[float] | npt.NDArray[np.float64],
        flagged: Sequence[bool] | npt.NDArray[np.bool_],
        failed: Sequence[bool] | npt.NDArray[np.bool_],
        *,
        edited: int = 0,
        step_seconds: float | None = None,
    ) -> None:
        """Take in the images of one call.

        Parameters
        ----------
        scores : float array, shape (n,)
            NaN where no detector looked.
        flagged, failed : bool arrays, shape (n,)
        edited : int
            Images that a correction changed.
        step_seconds : float, optional
            Mean seconds a step.
        """
        of, values = self.metrics, np.asarray(scores, np.float64)
        of.images.labels(self.name).inc(len(failed))
        of.flagged.labels(self.name).inc(int(np.count_nonzero(flagged)))
        of.failed.labels(self.name).inc(int(np.count_nonzero(failed)))
        of.edited.labels(self.name).inc(edited)
        finite = values[np.isfinite(values)]
        with self._lock:
            self._latest.extend(finite.tolist())
        if self._limits is not None:
            for tenth in np.searchsorted(self._limits, finite, side="right"):
                of.scores.labels(self.name, str(int(tenth))).inc()
        if step_seconds is not None:
            of.seconds.labels(self.name).observe(step_seconds)

    def drift(self) -> tuple[float, float]:
        """Distance of the latest scores to the calibration's, and its p-value; computed anew.

        Returns
        -------
        float, float
            0 and 1 while there are fewer than 20 scores, or the thresholds carry no counts.
        """
        with self._lock:
            values = np.array(self._latest)
        shipped = self.thresholds.counts
        if len(values) < FEWEST or not shipped.get("score", {}).get("bins"):
            return 0.0, 1.0
        return two_sample(shipped["score"], values, float(shipped["bin_width"]))

    # ---- of a corrector

    def after_step(self, event: Any, sample: Any, report: Sequence[Any], *, edits: bool) -> None:
        """See a step of a corrector's call; its last one is counted.

        Parameters
        ----------
        event : asced_recorders.tap.events.StepEvent
        sample : torch.Tensor, shape (n, ...)
            What goes on; after the last step the end.
        report : sequence of ImageReport
            Of this call.
        edits : bool
            Whether flagged images are edited.
        """
        from asced_analysis.correction.loop_step import PartialStepTable

        if event.step == 0:
            self._call.began = perf_counter()
        whole = not isinstance(event.table, PartialStepTable)  # else nothing follows T_c
        if event.step + (1 if whole else 2) != event.steps:
            return
        finite = sample.reshape(len(sample), -1).isfinite().all(1).cpu().numpy()
        report = report[-len(sample) :]
        seconds = None
        if whole and event.steps > 1:  # the first step's network was asked before it began
            seconds = (perf_counter() - self._call.began) / (event.steps - 1)
        self.count(
            [image.score for image in report],
            [image.flagged for image in report],
            ~finite,
            edited=sum(image.changed > 0 for image in report) if edits else 0,
            step_seconds=seconds,
        )

    # ---- of a recorder

    def observe(self, batch: Any) -> Any:
        """Look at a recorded batch (`asced_recorders.writing.observers.RunObserver`)."""
        from asced_analysis.statistics.observing import FlagObserver
        from asced_stores.writing.not_finite import finite_runs

        seen = FlagObserver(self.thresholds, override=self.override).observe(batch)
        failed = np.zeros(len(batch.runs), bool)
        for name in ("eps", "x0", "sample"):
            if name in batch.arrays:
                failed |= ~finite_runs(batch.arrays[name])
        self.count(seen.features["score"], seen.features["flagged"], failed)
        return seen

    @contextmanager
    def timed(self, steps: int) -> Iterator[None]:
        """Measure the seconds a step of a call that a recorder watches."""
        began = perf_counter()
        yield
        self.metrics.seconds.labels(self.name).observe((perf_counter() - began) / steps)


def _tenths(counts: Any) -> npt.NDArray[np.float64] | None:
    """Upper limits of the lower nine tenths of the calibration's scores."""
    score = counts.get("score") or {}
    if not score.get("bins"):
        return None
    totals = np.cumsum(score["counts"])
    places = np.searchsorted(totals, totals[-1] * np.arange(1, TENTHS) / TENTHS)
    bins = np.asarray(score["bins"], np.float64)
    return np.asarray((bins[places] + 1) * float(counts["bin_width"]), np.float64)
