"""The correction of a replay at wrong places: its controls, sampled for the same flagged runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.best_of import BestOf
from asced_analysis.correction.controls import CONTROLS, Control
from asced_analysis.correction.places import PLACES, is_found
from asced_analysis.correction.registry import make_strategy
from asced_analysis.correction.strategy import Strategy
from asced_analysis.evaluation.judges import choose_teacher, pictures
from asced_analysis.replay.planning import (
    Plan,
    asked_network,
    at_mask,
    detect_recorded,
)
from asced_analysis.replay.recording import Recording
from asced_analysis.thresholds import Thresholds
from asced_stores import TrajectoryStore
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.realism.local import RealismModel

AT_ONCE = 64


@dataclass(frozen=True)
class Twins:
    """Flagged runs of a replay beside their recorded twins."""

    runs: NDArray[np.int64]
    masks: NDArray[np.bool_]
    scores: NDArray[np.float64]
    before: NDArray[np.float32]
    after: NDArray[np.float32]


def recorded_strategy(attributes: Mapping[str, Any]) -> Strategy:
    """The strategy of a replay, as its store describes it.

    A place that a function found is kept by the function's name alone: it counts as found in the
    picture, as the foreground is.
    """
    parameters = dict(attributes.get("strategy_parameters", {}))
    if "where" in parameters and parameters["where"] not in PLACES:
        parameters["where"] = "foreground"
    return make_strategy(str(attributes["strategy"]), **parameters)


def controls_of(controls: bool | Sequence[Control], store: TrajectoryStore) -> list[Control]:
    """Controls to run.

    None for strategies that correct whole runs, whatever the place; where a strategy edits all of
    the foreground, random places of it are no control.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if controls is False or store.attributes["strategy"] == "none":
        return []
    wanted = CONTROLS if controls is True else tuple(controls)
    unknown = [name for name in wanted if name not in CONTROLS]
    if unknown:
        raise InputError(f"unknown control {unknown[0]!r}; choose some of {', '.join(CONTROLS)}")
    place = recorded_strategy(store.attributes).place
    if place == "everywhere":
        return []
    return [name for name in wanted if name != "foreground" or not is_found(place)]


class ControlSampler:
    """Samples the flagged runs again with the same correction at wrong places."""

    def __init__(self, recording: Recording, store: TrajectoryStore, pipeline: Any) -> None:
        from asced_analysis.replay.environment import matching_pipeline

        self.recording = recording
        self.attributes = store.attributes
        self.pipe = matching_pipeline(recording.attributes, pipeline)
        self.strategy = recorded_strategy(store.attributes)
        self.teacher = self._teacher()
        self.seen = self._find()

    def sample(
        self, control: Control, twins: Twins
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Final samples (n, channel, y, x) and the masks used (n, y, x)."""
        from asced_analysis.replay.environment import recorded_threads
        from asced_analysis.replay.jobs import Job
        from asced_analysis.replay.planning import control_plan

        attributes = self.attributes
        seed = int(attributes["correction_seed"])
        seen = self.seen
        known = Plan(
            {int(run): m for run, m in zip(twins.runs, twins.masks, strict=True)},
            first_flagged=seen.first_flagged,
            window=seen.window,
        )
        plan = control_plan(known, control, self.recording, seed=seed)
        start = attributes["start"]
        job = Job(
            recording=self.recording,
            pipe=self.pipe,
            strategy=at_mask(self.strategy),
            target=int(attributes["correction_step"]),
            begin=start if isinstance(start, int) else 0,
            seed=seed,
            plan=plan,
            grow=0,
            teacher=self.teacher,
        )
        samples = []
        with recorded_threads(self.recording.attributes):
            for begin in range(0, len(twins.runs), AT_ONCE):
                batch = self.recording.select(twins.runs[begin : begin + AT_ONCE])
                samples.append(pictures(job.sample(batch)[0]))
        return np.concatenate(samples), np.stack([plan.masks[int(run)] for run in twins.runs])

    def _find(self) -> Plan:
        """When each run was first flagged, for strategies that go by it: a control must as well."""
        settings = self.attributes.get("thresholds")
        if settings is None or not self.strategy.streams_masks:
            return Plan({})
        if not self.recording.has_trajectory:
            return Plan({})
        last = int(self.attributes["correction_step"]) - 1
        thresholds = Thresholds.from_dict(settings)
        return detect_recorded(
            self.recording,
            thresholds,
            last_step=last,
            streamed=True,
            network=asked_network(thresholds, self.pipe),
        )

    def _teacher(self) -> RealismModel | None:
        """Who chose among draws in the replay, if anybody did."""
        name = self.attributes.get("teacher")
        if not isinstance(self.strategy, BestOf):
            return None
        for known in (None, "patches"):
            teacher = choose_teacher(known, self.recording)
            if teacher.name == name:
                return teacher
        raise InputError(
            f"the draws were chosen by {name}, which is not at hand: evaluate without controls "
            "(--no-controls), or replay with another teacher"
        )
