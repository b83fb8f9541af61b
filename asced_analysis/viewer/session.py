"""The page's requests and the answers to them, for the server and the notebook alike."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asced_analysis.viewer import frames
from asced_analysis.viewer.answers import Answer
from asced_analysis.viewer.exporting import Exporter
from asced_analysis.viewer.replays import correction_in_words
from asced_analysis.viewer.shown import ShownRuns
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


THUMBNAIL, LARGEST = 96, 768
MOST_ON_A_PAGE = 200
DETAILS = ("seed", "label", "prompt", "guidance_scale")
PAGE_SIZE = 48


class Session(ShownRuns):
    """Runs under the eyes of one or more people; answers requests by name.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them.
    keep_scores : bool
        Keep scores beside the store for the next time.
    **shown
        As of `asced_analysis.viewer.shown.ShownRuns`.
    """

    def __init__(self, ds: xr.Dataset, *, keep_scores: bool = True, **shown: Any) -> None:
        super().__init__(ds, **shown)
        self._counted: set[str] = set()
        self._files = Exporter(self)
        self._requests: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "about": self._about,
            "table": self._table,
            "scores": self._scores,
            "gallery": self._gallery,
            "find": self._find,
            "run": self._run,
            "frames": self._frames,
            "mask": self._mask,
            "rate": self._rate,
            "curve": self._curve,
            "bands": self._bands,
            "label": self._label,
            "edit": self._edit,
            "export": self._export,
        }
        self._count(self.signals[0])
        self.background.add("phases", self.population.find_phases(), rank=1)
        self.background.add("scores", self.scores.score(keep=keep_scores), rank=2)
        if self.distances is not None:
            self.background.add("distances", self.distances.measure(), rank=2)

    def answer(self, request: str, given: Mapping[str, Any]) -> Answer:
        """Answer a request of the page.

        Parameters
        ----------
        request : str
            Its name.
        given : mapping
            Plain JSON values.

        Raises
        ------
        InputError
            Where there is no such request, or what was given makes no sense.
        """
        if request not in self._requests:
            raise InputError(f"no request {request!r}")
        with self.background.answering():
            try:
                return self._requests[request](given)
            except (KeyError, TypeError, ValueError) as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{request}: {given!r} makes no sense ({error})") from error

    def close(self) -> None:
        """End the work behind the page."""
        self.background.close()

    def _about(self, _given: Mapping[str, Any]) -> Answer:
        return Answer(
            {
                "name": self.name,
                "pipeline": str(self.ds.attrs.get("pipeline", "")),
                "scheduler": str(self.ds.attrs.get("scheduler_class", "")),
                "runs": len(self.runs.runs),
                "steps": self.runs.steps,
                "channels": self.runs.channels,
                "height": self.runs.height,
                "width": self.runs.width,
                "frames": self.runs.frames,
                "latent": self.runs.latent,
                "steps_at_once": self.runs.steps_at_once,
                "kinds": frames.kinds_of(self.runs),
                "signals": self.signals,
                "signal": self.scores.signal(self.signals),
                "window": self.scores.window,
                "page_size": PAGE_SIZE,
                "replay": self.corrected is not None,
                "thresholds": self.scores.promise(),
                "source": self.scores.known.source,
                "masks": self.scores.has_masks,
                "distance": None if self.distances is None else self.distances.words,
                "judge": None if self.distances is None else self.distances.reference,
            }
        )

    def _table(self, _given: Mapping[str, Any]) -> Answer:
        count = len(self.runs.runs)
        columns: dict[str, npt.NDArray[Any]] = {"run": self.runs.runs.astype(np.float64)}
        for name in ("seed", "label"):
            known = name in self.ds.coords and self.ds[name].dtype.kind in "iuf"
            values = self.ds[name].values if known else np.full(count, np.nan)
            columns[name] = np.asarray(values, np.float64)
        if self.corrected is not None:
            columns["change"] = self._of_corrected("difference")
        if self.distances is not None:
            columns["distance"] = self.distances.values.astype(np.float64)
        return Answer({}, columns)

    def _of_corrected(self, name: str) -> npt.NDArray[np.float64]:
        """A number by run of the replay, NaN where a run was not replayed."""
        found = np.full(len(self.runs.runs), np.nan)
        if self.corrected is None or name not in self.corrected:
            return found
        values = np.asarray(self.corrected[name].values, np.float64)
        for row, run in enumerate(self.runs.runs):
            if (place := self.corrected_row.get(int(run))) is not None:
                found[row] = values[place]
        return found

    def _scores(self, given: Mapping[str, Any]) -> Answer:
        scores, judged = self.scores.known, self.distances
        done = scores.done + (0 if judged is None else judged.done)
        progress = {
            "done": done,
            "of": scores.values.size + (0 if judged is None else judged.size),
            "pending": self.background.pending(),
            "errors": list(self.background.errors.values()),
            "phases": self.population.boundaries(),
            "level": self.scores.level(),
        }
        if int(given.get("done", -1)) == done:
            return Answer(progress)
        arrays = {"score": scores.values.copy()}
        if judged is not None:
            arrays["distance"] = judged.values.astype(np.float64)
        return Answer(progress, arrays)

    def _gallery(self, given: Mapping[str, Any]) -> Answer:
        rows = [self.row(row) for row in given["rows"][:MOST_ON_A_PAGE]]
        small = self.runs.thumbnails(rows, THUMBNAIL)
        return Answer(
            {"rows": rows}, {str(row): image for row, image in zip(rows, small, strict=True)}
        )

    def _find(self, given: Mapping[str, Any]) -> Answer:
        """Rows whose prompt holds a text."""
        text = str(given["text"]).casefold()
        prompts: Any = self.ds["prompt"].values if "prompt" in self.ds.coords else []
        rows = [row for row, prompt in enumerate(prompts) if text in str(prompt).casefold()]
        return Answer({}, {"rows": np.asarray(rows, np.int32)})

    def _run(self, given: Mapping[str, Any]) -> Answer:
        row = self.row(given["row"])
        run = int(self.runs.runs[row])
        details = [
            (name.replace("_", " "), str(self.ds[name].values[row]))
            for name in DETAILS
            if name in self.ds.coords and str(self.ds[name].values[row]) not in ("", "nan", "-1")
        ]
        reasons = self.scores.known.reasons
        if row < len(reasons):
            details.append(("most unusual", reasons[row]))
        arrays = {"image": self.runs.large(self.runs.image(row), LARGEST)}
        place = self.corrected_row.get(run)
        if self.distances is not None:
            details += self.distances.of_run(row, place)
        if self.corrected is not None and place is not None:
            corrected = self.corrected.isel(run=place)
            flagged = bool(corrected["flagged"]) if "flagged" in corrected else True
            shown = self.runs.corrected(row, corrected) if flagged else None
            if shown is not None:
                arrays["corrected"] = self.runs.large(shown, LARGEST)
            if "mask" in corrected:
                arrays["corrected_mask"] = np.asarray(corrected["mask"].values).astype(np.uint8)
            done = correction_in_words(self.corrected.attrs)
            details.append(("replay", done if flagged else "not flagged, left alone"))
        details += self.scores.why(row)
        hand = self.hand.masks.get(run)
        if hand is not None:
            arrays["hand"] = hand.astype(np.uint8)
        header = {"row": row, "run": run, "details": details, "label": self.hand.labels.get(run)}
        return Answer(header, arrays)

    def _frames(self, given: Mapping[str, Any]) -> Answer:
        row, frame = self.row(given["row"]), self.frame(given)
        first = min(max(0, int(given["first"])), self.runs.steps - 1)
        stop = min(self.runs.steps, first + self.runs.steps_at_once)
        found = frames.strips(self.runs, row, first, stop, signal=str(given["signal"]), frame=frame)
        header = {
            "row": row,
            "first": first,
            "stop": stop,
            "scales": {s.kind: {"scale": s.scale, "low": s.low, "high": s.high} for s in found},
        }
        return Answer(header, {strip.kind: np.stack(strip.images) for strip in found})

    def _mask(self, given: Mapping[str, Any]) -> Answer:
        row, level = self.row(given["row"]), float(given["level"])
        mask = self.scores.mask(row, level, self.frame(given))
        if mask is None:
            return Answer({"row": row})
        share = float(mask.mean())
        return Answer({"row": row, "share": share}, {"mask": mask.astype(np.uint8)})

    def _rate(self, given: Mapping[str, Any]) -> Answer:
        return Answer(self.scores.rates(float(given["level"]), self.hand.labels))

    def _curve(self, given: Mapping[str, Any]) -> Answer:
        steps, values = self.region_curve(given)
        return Answer({"step": steps, "value": values})

    def _bands(self, given: Mapping[str, Any]) -> Answer:
        signal = str(given["signal"])
        if signal not in self.signals:
            raise InputError(f"no signal {signal!r}; choose one of {', '.join(self.signals)}")
        self._count(signal)
        known = {"bands": self.population.bands(signal), "phases": self.population.boundaries()}
        return Answer({**known, "pending": f"bands {signal}" in self.background.pending()})

    def _count(self, signal: str) -> None:
        """Count the population's dynamics of a signal, once."""
        if signal not in self._counted:
            self._counted.add(signal)
            bands = self.population.grow_bands(signal)
            self.background.add(f"first {signal}", itertools.islice(bands, 1), rank=0)
            self.background.add(f"bands {signal}", bands, rank=3)

    def _label(self, given: Mapping[str, Any]) -> Answer:
        run, broken = int(self.runs.runs[self.row(given["row"])]), given["broken"]
        self.hand.label(run, None if broken is None else bool(broken))
        return self._labelled()

    def _edit(self, given: Mapping[str, Any]) -> Answer:
        run = int(self.runs.runs[self.row(given["row"])])
        self.hand.edit(run, None if given["mask"] is None else self.picked(given["mask"]))
        return self._labelled()

    def _labelled(self) -> Answer:
        return Answer(
            {
                "labels": {str(run): broken for run, broken in self.hand.labels.items()},
                "masks": sorted(self.hand.masks),
            }
        )

    def _export(self, given: Mapping[str, Any]) -> Answer:
        return self._files.answer(given)
