"""Files to take along: the selection, labels and masks by hand, figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.viewer import figures
from asced_analysis.viewer.answers import Answer, file_answer
from asced_analysis.viewer.labelling import run_list
from asced_analysis.viewer.shown import ShownRuns
from asced_stores.errors import InputError


class Exporter:
    """Makes files out of the runs that are shown."""

    def __init__(self, shown: ShownRuns) -> None:
        self._shown = shown

    def answer(self, given: Mapping[str, Any]) -> Answer:
        """The file that was asked for.

        Raises
        ------
        InputError
            Where there is nothing to save yet, or no such file.
        """
        on = self._shown
        what, form = str(given["what"]), str(given.get("form", "png"))
        stem = Path(on.name).stem or "runs"
        if what == "labels":
            return file_answer(f"{stem}-labels.csv", "text/csv", on.hand.as_csv())
        if what == "masks":
            content = on.hand.as_npz()
            return file_answer(f"{stem}-masks.npz", "application/octet-stream", content)
        if what in ("selection", "numbers"):
            return self._selection(given, what, stem)
        row = on.row(given["row"])
        run, signal = int(on.runs.runs[row]), str(given.get("signal", on.signals[0]))
        if what == "mask":
            return file_answer(f"{run}.png", "image/png", on.hand.as_png(run))
        if what == "film":
            mask = on.picked(given["region"]) if given.get("region") else None
            content = figures.film_strip(on.ds, run, signal, mask, form)
        elif what == "dynamics":
            steps, values = on.region_curve(given)
            name = str(given.get("name", "region"))
            content = figures.dynamics(on.population, signal, steps, values, name, form)
        elif what == "paired_runs" and on.corrected is not None:
            content = figures.paired_runs(on.ds, on.corrected, [run], form)
        else:
            raise InputError(f"no export {what!r}")
        return file_answer(f"{stem}-run{run}-{what}.{form}", figures.MEDIA[form], content)

    def _selection(self, given: Mapping[str, Any], what: str, stem: str) -> Answer:
        """Chosen runs as a table, or as the list that ``asced select --runs`` takes."""
        rows = [self._shown.row(row) for row in given["rows"]]
        if not rows:
            raise InputError("no run is selected yet")
        if what == "numbers":
            text = run_list(self._shown.runs.runs[rows]) + "\n"
            return file_answer(f"{stem}-runs.txt", "text/plain", text.encode())
        level = float(given["level"])
        lines = [self._line(row, level) for row in rows]
        text = "run,seed,label,score,flagged,by_hand\n" + "\n".join(lines) + "\n"
        return file_answer(f"{stem}-selection.csv", "text/csv", text.encode())

    def _line(self, row: int, level: float) -> str:
        """One run of the selection as CSV; numbers and our own words only."""
        run, score = (
            int(self._shown.runs.runs[row]),
            float(self._shown.scores.known.values[row]),
        )
        told = [
            str(self._shown.ds[name].values[row])
            if name in self._shown.ds.coords and self._shown.ds[name].dtype.kind in "iu"
            else ""
            for name in ("seed", "label")
        ]
        by_hand = {True: "broken", False: "normal", None: ""}[self._shown.hand.labels.get(run)]
        scored = ["", ""] if np.isnan(score) else [f"{score:.9g}", str(int(score > level))]
        return ",".join([str(run), *told, *scored, by_hand])
