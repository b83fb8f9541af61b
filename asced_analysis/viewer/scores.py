"""Which runs are flagged at a level, how often by mistake, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asced_analysis.viewer.reading import RecentResults, Trajectories
from asced_analysis.viewer.scoring import ScoreFile, Scores, by_features, by_thresholds

if TYPE_CHECKING:
    import xarray as xr

    from asced_analysis.thresholds.document import Thresholds

USUAL_SHARE = 0.05
"""Share of the runs above the first level where no thresholds give one."""


class RunScores:
    """Scores and masks of runs, from thresholds, else a replay, else features of the runs.

    Parameters
    ----------
    runs : Trajectories
    thresholds : Thresholds, optional
    corrected : xarray.Dataset, optional
        A replay's runs.
    override : bool
        Use thresholds that were calibrated on something else.
    pipeline : DiffusionPipeline, str or Path, optional
        For thresholds with a lookahead; by default the one that the store names.
    """

    def __init__(
        self,
        runs: Trajectories,
        thresholds: Thresholds | None,
        corrected: xr.Dataset | None,
        *,
        override: bool = False,
        pipeline: Any = None,
    ) -> None:
        self._runs, self._thresholds, self._corrected = runs, thresholds, corrected
        self._states = RecentResults(64 * 2**20)
        self._detector = None
        count = len(runs.runs)
        self._above = np.zeros(count)
        if thresholds is not None:
            from asced_analysis.detection.apply import bind, own_levels_above

            self._detector = bind(runs.ds, thresholds, override=override, pipeline=pipeline)
            self._above = own_levels_above(runs.ds, thresholds)
            self.known = Scores(count, "thresholds")
        elif corrected is not None and "score" in corrected and _scored(corrected):
            self.known = Scores(count, "replay")
        else:
            self.known = Scores(count, "features")

    @property
    def has_masks(self) -> bool:
        """Whether there are masks at a level."""
        return self._detector is not None

    @property
    def window(self) -> list[int] | None:
        """First and last step that the thresholds look at; None without thresholds."""
        if self._detector is None:
            return None
        return [int(self._detector.first_step), int(self._detector.last_step)]

    def signal(self, known: Sequence[str]) -> str:
        """The signal whose dynamics the thresholds look at, or the first that is known."""
        if self._thresholds is None or self._detector is None:
            return known[0]
        named = self._thresholds.parameters.get("signal")
        if named not in known:
            named = "predicted_x0" if "x0" in self._detector.needs() else "weighted_score"
        return str(named) if named in known else known[0]

    def why(self, row: int) -> list[tuple[str, str]]:
        """What made a run's score, in words; nothing without thresholds."""
        score, window = float(self.known.values[row]), self.window
        if window is None or np.isnan(score):
            return []
        return [("score", f"{score:.3g}, of steps {window[0]} to {window[1]}")]

    def score(self, *, keep: bool) -> Iterator[None]:
        """Score all runs, piece by piece; kept scores are taken at once."""
        if self.known.source == "replay":
            self.known.take(self._scores_of_replay())
            return
        of = {} if self._thresholds is None else self._thresholds.to_dict()
        kept = ScoreFile(self._runs.ds, {"thresholds": of, "above": self._above.tolist()})
        if keep and (found := kept.load()) is not None:
            self.known.take(found[0])
            self.known.reasons = found[1]
            return
        if self._detector is not None:
            yield from by_thresholds(self._runs.ds, self._detector, self.known, self._above)
        else:
            yield from by_features(self._runs.ds, self.known)
        if keep:
            kept.save(self.known)

    def level(self) -> float | None:
        """The level to begin with."""
        if self._detector is not None:
            return float(self._detector.level)
        known = self.known.values[np.isfinite(self.known.values)]
        return float(np.quantile(known, 1 - USUAL_SHARE)) if known.size else None

    def promise(self) -> dict[str, Any] | None:
        """What the thresholds promise, in plain values."""
        if self._thresholds is None:
            return None
        guarantee = self._thresholds.guarantee
        return {
            "variant": self._thresholds.variant,
            "level": self.level(),
            "promised": guarantee.promised,
            "population": guarantee.population,
            "unit": guarantee.unit,
            "measured": guarantee.measured,
            "interval": None if guarantee.interval is None else list(guarantee.interval),
            "report": guarantee.report,
            "method": guarantee.method,
        }

    def rates(self, level: float, labels: Mapping[int, bool]) -> dict[str, Any]:
        """What is flagged at a level, of all runs and of those labelled normal or broken by hand.

        Parameters
        ----------
        level : float
        labels : mapping of run to bool
            True: broken.

        Returns
        -------
        dict
            ``all``, ``normal`` and ``broken``: ``runs``, ``flagged``, ``rate`` and its 95 %
            Clopper-Pearson ``interval`` (None without runs). The false-alarm rate is that of
            ``normal``; where nobody labelled runs, every run counts as normal, as in calibration
            on all runs.
        """
        scores = self.known.values
        known = ~np.isnan(scores)
        flagged = np.zeros(scores.size, bool)
        flagged[known] = scores[known] > level
        said = np.array([labels.get(int(run), -1) for run in self._runs.runs], np.int8)
        sets = {"all": known, "normal": known & (said == 0), "broken": known & (said == 1)}
        found: dict[str, Any] = {"level": level}
        for name, members in sets.items():
            found[name] = _rate(int(flagged[members].sum()), int(members.sum()))
        return found

    def mask(self, row: int, level: float, frame: int = 0) -> npt.NDArray[np.bool_] | None:
        """Suspected pixels of a run at a level; None without thresholds.

        Parameters
        ----------
        row : int
            Position of the run.
        level : float
        frame : int
            Of a video.
        """
        detector = self._detector
        if detector is None:
            return None
        state = self._states.get((row, frame), lambda: self._watch(row, frame))
        found = replace(detector, level=level + float(self._above[row])).result(state)
        mask: npt.NDArray[np.bool_] = np.asarray(found.mask, np.bool_)[0]
        return mask

    def _watch(self, row: int, frame: int) -> tuple[Any, int]:
        """The detector's state after the window of one run."""
        from asced_analysis.detection.apply import watch

        detector = self._detector
        assert detector is not None
        stop = detector.last_step + 1
        one = self._runs.part(row, detector.first_step, stop, frame)
        skip = detector.first_step - int(one.attrs["first"])
        inputs = {
            name: one[name].transpose("run", "step", "channel", "y", "x").values[:, skip:]
            for name in detector.needs()
        }
        return watch(detector, inputs), 16 * self._runs.height * self._runs.width

    def _scores_of_replay(self) -> npt.NDArray[np.float32]:
        """Scores that the replay kept, run by run."""
        assert self._corrected is not None
        known = dict(
            zip(
                self._corrected["run"].values.tolist(), self._corrected["score"].values, strict=True
            )
        )
        return np.array([known.get(int(run), np.nan) for run in self._runs.runs], np.float32)


def _scored(replayed: xr.Dataset) -> bool:
    """Whether a replay has scores: masks that were given have none."""
    return bool(np.isfinite(replayed["score"].values).any())


def _rate(flagged: int, runs: int) -> dict[str, Any]:
    """A rate with its interval."""
    from asced_analysis.thresholds.conformal import rate_interval

    if not runs:
        return {"runs": 0, "flagged": 0, "rate": None, "interval": None}
    return {
        "runs": runs,
        "flagged": flagged,
        "rate": flagged / runs,
        "interval": list(rate_interval(flagged, runs)),
    }
