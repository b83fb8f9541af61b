"""Outcomes from elsewhere by whatever holds them: a table of scores, or masks of broken places."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.detection.external import read_masks
from asced_analysis.realism.outcomes import Better, Outcomes, outcomes_of_masks, read_outcomes

TABLES = (".csv", ".tsv", ".txt", ".parquet", ".pq")


def given_outcomes(outcomes: Any, masks: Any = None, *, better: Better = "lower") -> Outcomes:
    """Read scores, masks, or both.

    Parameters
    ----------
    outcomes : Outcomes, mapping or path, or None
        A table of scores (`read_outcomes`), or masks: a folder or file that
        `asced_analysis.detection.external.read_masks` reads, or a mapping of run to bool (y, x).
    masks : mapping or path, optional
        Masks beside scores.
    better : {"lower", "higher"}
        Which scores are good; of masks, less is better.

    Raises
    ------
    InputError
        Naming what cannot be read.
    """
    if masks is None and _are_masks(outcomes):
        outcomes, masks = None, outcomes
    scores = None if outcomes is None else read_outcomes(outcomes, better=better)
    if masks is None:
        assert scores is not None
        return scores
    found = masks if isinstance(masks, Mapping) else read_masks(masks)
    source = "given masks" if isinstance(masks, Mapping) else Path(masks).name
    return outcomes_of_masks(found, scores=scores, source=source)


def _are_masks(given: Any) -> bool:
    """Whether a mapping, folder or file holds masks and no scores."""
    if isinstance(given, (str, PathLike)):
        return Path(given).is_dir() or Path(given).suffix.lower() not in TABLES
    return isinstance(given, Mapping) and any(np.ndim(one) == 2 for one in given.values())
