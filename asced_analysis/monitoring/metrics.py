"""The metrics, made once a registry; each monitor fills those of its own name."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from asced_stores.errors import InputError, install_hint

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LABEL = "monitor"
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_made: WeakKeyDictionary[Any, Metrics] = WeakKeyDictionary()
_making = Lock()


@dataclass(frozen=True)
class Metrics:
    """All of them, of one registry. What each says stands in its help text."""

    images: Counter
    flagged: Counter
    failed: Counter
    edited: Counter
    scores: Counter
    seconds: Histogram
    level: Gauge
    promised: Gauge
    distance: Gauge
    p_value: Gauge
    compared: Gauge


def metrics_of(registry: CollectorRegistry | None) -> tuple[CollectorRegistry, Metrics]:
    """A registry and its metrics, made when they are first asked for.

    Raises
    ------
    InputError
        Where prometheus_client is not installed.
    """
    try:
        import prometheus_client as prometheus
    except ModuleNotFoundError as error:
        raise InputError(
            f"monitoring needs prometheus_client: {install_hint('monitor')}"
        ) from error
    with _making:
        into = prometheus.REGISTRY if registry is None else registry
        if into not in _made:
            _made[into] = _make(prometheus, into)
        return into, _made[into]


def _make(prometheus: Any, registry: CollectorRegistry) -> Metrics:
    def make(kind: str, name: str, text: str, *labels: str, **more: Any) -> Any:
        of = getattr(prometheus, kind)
        return of(f"asced_{name}", text, (LABEL, *labels), registry=registry, **more)

    return Metrics(
        images=make("Counter", "images", "Images that were looked at"),
        flagged=make("Counter", "flagged_images", "Images whose score lay above the level"),
        failed=make("Counter", "failed_images", "Images that ended in NaN or infinity"),
        edited=make("Counter", "edited_images", "Images that a correction changed"),
        scores=make(
            "Counter",
            "scores",
            "Scores by the tenth of the calibration's scores that they fall in, 0 the lowest",
            "tenth",
        ),
        seconds=make("Histogram", "step_seconds", "Seconds a step of a call", buckets=SECONDS),
        level=make("Gauge", "score_level", "Level above which a run is flagged"),
        promised=make("Gauge", "promised_flagged_rate", "False-alarm rate that is promised"),
        distance=make(
            "Gauge",
            "drift_distance",
            "Kolmogorov-Smirnov distance of the latest scores to those of the calibration",
        ),
        p_value=make("Gauge", "drift_p_value", "Of that distance, 1 while there are too few"),
        compared=make("Gauge", "drift_images", "Latest scores that are compared"),
    )
