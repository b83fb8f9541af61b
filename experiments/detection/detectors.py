"""Every detector, learnt once on the runs for tuning, and its rankings, kept in the cache."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.calibration import calibrate
from asced_analysis.calibration.choose_level import LEARNING
from asced_analysis.realism import load_embedded
from asced_analysis.thresholds.document import Thresholds
from asced_analysis.thresholds.registries import VARIANTS
from asced_stores.errors import InputError
from experiments.datasets.committee import committee
from experiments.detection.ranking import Ranked, image_auroc, rank

FRACTIONS = (0.5, 0.4, 0.1)
EPOCHS = 25
RUN_LEVEL = ("trajectory_variance", "diffpath", "score_norm", "final_variance")
DIRECTED = ("trajectory_variance", "score_norm", "final_variance")


@dataclass(frozen=True)
class Candidate:
    """A detector to be ranked: a variant with parameters, perhaps with two teachers."""

    variant: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    committee: bool = False


MAIN = "outcome, two teachers"
CANDIDATES: dict[str, Candidate] = {
    MAIN: Candidate("outcome", committee=True),
    "outcome": Candidate("outcome"),
    "outcome, dynamics alone": Candidate("outcome", {"inputs": "dynamics"}),
    "outcome, snapshot alone": Candidate("outcome", {"inputs": "snapshot"}),
    "calibrated": Candidate("calibrated"),
    "paper": Candidate("paper"),
    "released": Candidate("released"),
    **{name: Candidate(name) for name in RUN_LEVEL},
}
"""Own variants first, then the paper's, then what others do."""

BREAKS = {"signal": "innovation", "combine": "peak"}
OPTIONS: dict[str, Candidate] = {
    "as it comes": Candidate("calibrated"),
    "peak": Candidate("calibrated", {"combine": "peak"}),
    "persistent": Candidate("calibrated", {"combine": "persistent"}),
    "local contrast": Candidate("calibrated", {"contrast": "local"}),
    "local contrast, peak": Candidate("calibrated", {"contrast": "local", "combine": "peak"}),
    "weighted score": Candidate("calibrated", {"signal": "weighted_score"}),
    "weighted score, peak": Candidate(
        "calibrated", {"signal": "weighted_score", "combine": "peak"}
    ),
    "innovation": Candidate("calibrated", {"signal": "innovation"}),
    "innovation, peak": Candidate("calibrated", BREAKS),
    "innovation, peak, two-sided": Candidate("calibrated", BREAKS | {"direction": "both"}),
    "innovation, peak, one scale": Candidate("calibrated", BREAKS | {"by_position": False}),
    "innovation, peak, no clean-up": Candidate("calibrated", BREAKS | {"min_width": 0.0}),
    "innovation, peak, no blur": Candidate("calibrated", BREAKS | {"blur": 0.0}),
    "innovation, peak, floor 0.01": Candidate("calibrated", BREAKS | {"floor": 1e-2}),
    "innovation, persistent": Candidate(
        "calibrated", {"signal": "innovation", "combine": "persistent"}
    ),
}
"""Choices of `calibrated`."""


def found_candidate(name: str) -> Candidate:
    """A detector to be ranked, or a choice of `calibrated`."""
    return CANDIDATES[name] if name in CANDIDATES else OPTIONS[name]


class Detectors:
    """Learn on `fit`; directions of run-level scores are chosen on `tune` by the teacher's labels.

    Parameters
    ----------
    cache : Path
    fit, tune : xarray.Dataset
    bad : bool array
        Runs of `tune` that end in the worst quarter, as the teacher sees it.
    key : str
        What tells these runs from others.
    """

    def __init__(
        self, cache: Path, fit: Any, tune: Any, bad: NDArray[np.bool_], key: str, **options: Any
    ) -> None:
        self.cache = cache
        self.fit, self.tune, self.bad = fit, tune, bad
        self.key, self.options = key, options
        self.cache.mkdir(parents=True, exist_ok=True)

    def thresholds(self, name: str, window: tuple[float, float]) -> Thresholds:
        """Thresholds of a candidate with a window in shares of sampling."""
        folder = self.cache / self._digest(name, window)
        path = folder / "thresholds.json"
        with suppress(InputError, FileNotFoundError):  # none kept yet, or by another version
            return Thresholds.load(path)
        one = found_candidate(name)
        tried = [dict(one.parameters)]
        if one.variant in DIRECTED:
            tried = [{"direction": d} for d in ("high", "low", "both")]
        found = [self._learn(one, parameters, window) for parameters in tried]
        if len(found) > 1:
            aurocs = [image_auroc(rank(self.tune, each).scores, self.bad) for each in found]
            found = [found[int(np.argmax(aurocs))]]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        found[0].save(path)
        return found[0]

    def _learn(self, one: Candidate, parameters: Any, window: tuple[float, float]) -> Thresholds:
        variant, options = one.variant, {"parameters": parameters or None}
        learnt = VARIANTS.get(variant).learnt
        if learnt:
            teaching = {"epochs": EPOCHS, "teacher": load_embedded("teacher")}
            teaching |= self.options.get("outcome", {})
            teaching |= {"teacher": committee()} if one.committee else {}
            teacher = teaching.pop("teacher")
            teaching["within_content"] = False
            options |= {"fractions": FRACTIONS, "outcome": teaching, "teacher": teacher}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return calibrate(
                self.fit,
                variant,
                method=LEARNING if learnt else "conformal",
                false_alarm_rate=0.05,
                window=window,
                **options,
            )

    def ranked(
        self, name: str, window: tuple[float, float], runs: Any, label: str
    ) -> tuple[Ranked, float]:
        """Scores and maps of some runs, and the milliseconds a run that ranking them took."""
        thresholds = self.thresholds(name, window)
        path = self.cache / self._digest(name, window) / f"{label}.npz"
        if not path.exists():
            begin = time.perf_counter()
            ranked = rank(runs, thresholds)
            spent = 1e3 * (time.perf_counter() - begin) / len(ranked.scores)
            np.savez(path, scores=ranked.scores, maps=ranked.maps.astype(np.float16), spent=spent)
        with np.load(path) as kept:
            return Ranked(kept["scores"], kept["maps"].astype(np.float32)), float(kept["spent"])

    def _digest(self, name: str, window: Sequence[float]) -> str:
        one = found_candidate(name)
        text = json.dumps([self.key, name, one.variant, list(window)])
        text += json.dumps(dict(one.parameters), sort_keys=True)
        return (
            f"{name.replace(', ', '-').replace(' ', '-')}-"
            + hashlib.sha256(text.encode()).hexdigest()[:10]
        )
