"""What a person says about runs: broken or normal, and where; in the files calibration reads."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_stores.errors import InputError

Mask = npt.NDArray[np.bool_]


class HandLabels:
    """Labels and masks given by hand, by run number.

    A mask with pixels says that the run is broken, unless the person says otherwise.
    """

    def __init__(self) -> None:
        self.labels: dict[int, bool] = {}
        self.masks: dict[int, Mask] = {}

    def label(self, run: int, broken: bool | None) -> None:
        """Call a run broken or normal, or take that back (None)."""
        if broken is None:
            self.labels.pop(run, None)
        else:
            self.labels[run] = broken

    def edit(self, run: int, mask: Mask | None) -> None:
        """Keep a run's mask, or drop it (None)."""
        if mask is None:
            self.masks.pop(run, None)
            return
        self.masks[run] = np.asarray(mask, np.bool_)
        if mask.any():
            self.labels.setdefault(run, True)

    def as_csv(self) -> bytes:
        """Columns ``run,label`` with ``broken`` and ``normal``, as ``asced calibrate`` reads them.

        Raises
        ------
        InputError
            Where nothing is labelled.
        """
        if not self.labels:
            raise InputError("no run is labelled yet: call some broken or normal first")
        words = {True: "broken", False: "normal"}
        lines = [f"{run},{words[broken]}" for run, broken in sorted(self.labels.items())]
        return ("run,label\n" + "\n".join(lines) + "\n").encode()

    def as_npz(self) -> bytes:
        """Arrays ``run`` and ``mask``, as ``asced replay --masks`` reads them.

        Raises
        ------
        InputError
            Where no mask was drawn.
        """
        if not self.masks:
            raise InputError("no mask is drawn yet: paint one first")
        runs = sorted(self.masks)
        buffer = io.BytesIO()
        content: dict[str, Any] = {
            "run": np.asarray(runs, np.int64),
            "mask": np.stack([self.masks[run] for run in runs]),
        }
        np.savez_compressed(buffer, **content)
        return buffer.getvalue()

    def as_png(self, run: int) -> bytes:
        """One run's mask as a picture, for a folder of ``<run>.png``.

        Raises
        ------
        InputError
            Where none was drawn for it.
        """
        from PIL import Image

        if run not in self.masks:
            raise InputError(f"no mask of run {run} is drawn yet: paint one first")
        buffer = io.BytesIO()
        Image.fromarray(self.masks[run].astype(np.uint8) * 255).save(buffer, "PNG")
        return buffer.getvalue()


def run_list(runs: npt.NDArray[np.int64]) -> str:
    """Run numbers as ``asced select --runs`` takes them: ``0-9,12``."""
    ordered = np.unique(runs)
    groups = np.split(ordered, np.flatnonzero(np.diff(ordered) != 1) + 1)
    return ",".join(
        str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}"
        for group in groups
        if len(group)
    )
