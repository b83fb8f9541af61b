"""Outcomes from elsewhere: scores by run of a reward model, of people, of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism.claims import Kind, Reference
from asced_analysis.realism.pictures import picture_shape
from asced_stores.errors import InputError
from asced_stores.files import csv_separator

if TYPE_CHECKING:
    import xarray as xr

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Outcomes:
    """How runs ended, as somebody else says.

    Attributes
    ----------
    scores : mapping of int to float
        By run; higher is worse.
    masks : mapping of int to bool array (y, x)
        Broken places by run, where they are known.
    source : str
        Name of the file or folder, without its path.
    of_masks : bool
        Whether the scores are the marked shares of the masks, and nobody's own.
    """

    scores: Mapping[int, float]
    masks: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    source: str = "given outcomes"
    of_masks: bool = False

    @property
    def reference(self) -> Reference:
        """What stands behind results."""
        kind: Kind = "masks" if self.of_masks else "given"
        what = "masks" if self.of_masks else "scores"
        return Reference(kind, f"{what} from {self.source}", len(self.scores))

    def masks_of(self, runs: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Masks of runs as numbers, shape (n, y, x)."""
        self.of(runs)
        return np.stack([self.masks[int(run)] for run in runs]).astype(np.float32)

    def of(self, runs: NDArray[np.integer[Any]], *, need_all: bool = True) -> NDArray[np.float64]:
        """Scores of runs; NaN, or an `InputError`, where there is none.

        Parameters
        ----------
        runs : int array, shape (n,)
        need_all : bool
            Whether a run without a score is an error.
        """
        values = np.array([self.scores.get(int(run), np.nan) for run in runs], np.float64)
        missing = [int(run) for run, value in zip(runs, values, strict=True) if np.isnan(value)]
        if need_all and missing:
            raise InputError(
                f"{self.source} has no outcome for run {missing[0]}"
                + (f" and {len(missing) - 1} others" if len(missing) > 1 else "")
            )
        return values

    def check(self, dataset: xr.Dataset, *, varied: bool = True) -> None:
        """Refuse outcomes of runs that are not complete, that are all alike, and masks that misfit.

        Parameters
        ----------
        dataset : xarray.Dataset
            The runs, as `open_runs` gives them.
        varied : bool
            Whether outcomes that are all the same are refused: they teach nothing, but corrected
            runs may all be good.

        Raises
        ------
        InputError
        """
        runs = np.asarray(dataset["run"].values, np.int64)
        unknown = sorted(set(self.scores) - {int(run) for run in runs})
        if unknown:
            raise InputError(
                f"{self.source} has outcomes of runs that are not among the complete ones here, "
                f"such as run {unknown[0]} ({len(unknown)} of {len(self.scores)}): they failed, are"
                f" unfinished or were never recorded. The store's {len(runs)} complete runs lie "
                f"between {int(np.min(runs))} and {int(np.max(runs))}; leave the others out"
            )
        if varied and len(set(self.scores.values())) < 2:
            raise InputError(
                f"all {len(self.scores)} outcomes of {self.source} are the same: there is nothing "
                "to learn or to compare"
            )
        fitting = {picture_shape(dataset)[1:]}
        if "sample" in dataset:
            rows, columns = dataset["sample"].shape[-2:]
            fitting.add((rows, columns))
        for run, mask in self.masks.items():
            if mask.shape not in fitting:
                wanted = " or ".join(f"{rows} x {columns}" for rows, columns in sorted(fitting))
                raise InputError(
                    f"the mask of run {run} in {self.source} is {' x '.join(map(str, mask.shape))};"
                    f" expected one of {wanted}, as the images or samples of these runs"
                )


def read_outcomes(
    outcomes: Outcomes | Mapping[int, float] | str | PathLike[str], *, better: Better = "lower"
) -> Outcomes:
    """Read outcomes.

    Parameters
    ----------
    outcomes : Outcomes, mapping of run to number, or path
        A CSV or Parquet file with columns ``run`` and ``score``.
    better : {"lower", "higher"}
        Which scores are good.

    Raises
    ------
    InputError
        Naming the file, and the row that is wrong.
    """
    if isinstance(outcomes, Outcomes):
        return outcomes
    if better not in ("lower", "higher"):
        raise InputError(f"better is {better!r}; expected 'lower' or 'higher'")
    if not isinstance(outcomes, (Mapping, str, PathLike)):
        raise InputError(
            f"outcomes are a {type(outcomes).__name__}; expected a mapping of run to score, or a "
            "CSV or Parquet file"
        )
    if isinstance(outcomes, Mapping):
        pairs, source = list(outcomes.items()), "given outcomes"
    else:
        pairs, source = _read_table(Path(outcomes)), Path(outcomes).name
    sign = 1.0 if better == "lower" else -1.0
    scores: dict[int, float] = {}
    for run, value in pairs:
        try:
            number, whole = float(value), int(run) == run
        except (TypeError, ValueError):
            number, whole = 0.0, False
        if not whole:
            raise InputError(
                f"{source}: run {run!r} with score {value!r}; expected a whole number and a number"
            )
        if not np.isfinite(number):
            raise InputError(f"{source}: the score of run {run} is {value}; leave such runs out")
        if scores.setdefault(int(run), sign * number) != sign * number:
            raise InputError(f"{source}: run {run} has two different scores")
    if not scores:
        raise InputError(f"{source} holds no outcome")
    return Outcomes(scores, source=source)


def outcomes_of_masks(
    masks: Mapping[int, NDArray[np.bool_]], *, scores: Outcomes | None = None, source: str
) -> Outcomes:
    """Masks of broken places as outcomes: with the given scores, else with their marked shares.

    Parameters
    ----------
    masks : mapping of int to bool array (y, x)
    scores : Outcomes, optional
        Runs without a mask, or without a score, are left out.
    source : str
        What the masks are called.

    Raises
    ------
    InputError
        Where masks differ in shape, or no run has both.
    """
    found = {int(run): np.asarray(mask, np.bool_) for run, mask in masks.items()}
    shapes = sorted({mask.shape for mask in found.values()})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise InputError(
            f"the masks of {source} have shapes {', '.join(map(str, shapes)) or '(none)'}; give "
            "one of the image's shape for every run"
        )
    if scores is None:
        shares = {run: float(mask.mean()) for run, mask in found.items()}
        return Outcomes(shares, found, source, of_masks=True)
    both = {run: score for run, score in scores.scores.items() if run in found}
    if not both:
        raise InputError(f"no run has both a score in {scores.source} and a mask in {source}")
    return Outcomes(both, found, f"{scores.source} with masks")


def _read_table(path: Path) -> list[tuple[int, float]]:
    """Runs and scores of a file."""
    import pandas as pd

    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = pd.read_parquet(path)
        else:
            header = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns  # compressed or not
            between = csv_separator(",".join(map(str, header)))
            point = "," if between == ";" else "."  # as Excel writes both together
            between = "\t" if path.suffix.lower() == ".tsv" else between
            table = pd.read_csv(path, sep=between, decimal=point, encoding="utf-8-sig")
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read as CSV or Parquet: {error}") from error
    missing = {"run", "score"} - set(table.columns)
    if missing:
        raise InputError(
            f"{path} has columns {', '.join(map(str, table.columns))}; expected 'run' and 'score'"
        )
    runs = pd.to_numeric(table["run"], errors="coerce")
    scores = pd.to_numeric(table["score"], errors="coerce")
    wrong = np.flatnonzero(runs.isna() | scores.isna() | (runs % 1 != 0))
    if len(wrong):
        place = int(wrong[0])
        run, score = (str(table[name].iloc[place]) for name in ("run", "score"))
        raise InputError(
            f"{path}, row {place + 1}: run {run!r} with score {score!r}; expected a whole number "
            "and a number"
        )
    return list(zip(runs.astype(int).tolist(), scores.astype(float).tolist(), strict=True))
