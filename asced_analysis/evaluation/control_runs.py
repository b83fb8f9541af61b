"""The correction of a replay at wrong places: its controls, sampled for the same flagged runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.controls import CONTROLS, Control
from asced_analysis.correction.regions import PLACES, is_found
from asced_analysis.evaluation.effects import EffectFigures
from asced_analysis.evaluation.intervals import share_estimate
from asced_analysis.evaluation.parts import ControlFigures
from asced_analysis.realism.judges import choose_judge
from asced_analysis.realism.pictures import read_pictures
from asced_analysis.replay.options import SamplerOptions
from asced_analysis.replay.recording import Recording
from asced_analysis.thresholds.document import Thresholds
from asced_analysis.thresholds.registries import STRATEGIES
from asced_stores import TrajectoryStore
from asced_stores.errors import InputError

if TYPE_CHECKING:  # what samples needs torch; judging runs that are there does not
    from asced_analysis.correction.strategy import Strategy
    from asced_analysis.realism.local import RealismModel
    from asced_analysis.replay.planning import Plan

AT_ONCE = 64


@dataclass(frozen=True)
class PairedRuns:
    """Corrected runs beside the recorded ones."""

    runs: NDArray[np.int64]
    masks: NDArray[np.bool_]
    scores: NDArray[np.float64]
    before: NDArray[np.float32]
    after: NDArray[np.float32]


def recorded_strategy(attributes: Mapping[str, Any]) -> Strategy:
    """The strategy of a replay, as its store describes it.

    A region that a function found is kept by the function's name alone: it counts as found in the
    picture, as the foreground is.
    """
    from asced_analysis.correction.registry import make_strategy
    from asced_analysis.correction.strategy import UnregisteredStrategy

    name = str(attributes["strategy"])
    if name not in STRATEGIES:
        return UnregisteredStrategy(name)
    parameters = dict(attributes.get("strategy_parameters", {}))
    if "where" in parameters and parameters["where"] not in PLACES:
        parameters["where"] = "foreground"
    return make_strategy(str(attributes["strategy"]), **parameters)


def controls_of(
    controls: bool | Sequence[Control], store: TrajectoryStore, *, everybody: bool = False
) -> list[Control]:
    """Controls to run; `everybody` says that every run was corrected.

    Where a strategy takes whole runs, as many others are the one control (``shuffled``), unless
    nobody else is left; where it edits all of the foreground, random places of it are no control.

    Raises
    ------
    InputError
        For an unknown name.
    """
    strategy = recorded_strategy(store.attributes)
    if controls is False or not strategy.edits:
        return []
    if str(store.attributes["strategy"]) not in STRATEGIES:
        if controls is not True and controls:
            raise InputError(
                f"the controls repeat the strategy {store.attributes['strategy']}, which is not "
                "known here: register it first (asced_analysis.correction.STRATEGIES.register)"
            )
        return []
    wanted = CONTROLS if controls is True else tuple(controls)
    unknown = [name for name in wanted if name not in CONTROLS]
    if unknown:
        raise InputError(f"unknown control {unknown[0]!r}; choose some of {', '.join(CONTROLS)}")
    region = strategy.region
    if region == "everywhere":
        return [name for name in wanted if name == "shuffled" and not everybody]
    return [name for name in wanted if name != "foreground" or not is_found(region)]


def control_figures(
    effect: EffectFigures,
    paired: PairedRuns,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    limit: float,
) -> ControlFigures:
    """Area, repair and harm of a control's runs.

    Parameters
    ----------
    effect : EffectFigures
    paired : PairedRuns
    before, after : float32 arrays, shape (n, rows, columns)
        Local distances.
    limit : float
        Mean local distance above which a run is broken.
    """
    was, now = (maps.mean((1, 2)) > limit for maps in (before, after))
    return ControlFigures(
        effect=effect,
        runs=len(paired.runs),
        mask_area=float(paired.masks.mean()),
        repaired=share_estimate(~now[was]),
        harmed_of_flagged_good=share_estimate(now[~was]),
    )


class ControlSampler:
    """Samples runs with the same correction at wrong places, or other runs than the flagged ones.

    Attributes
    ----------
    of_others : bool
        Whether the strategy takes whole runs, so that other runs are the control.
    """

    def __init__(
        self, recording: Recording, store: TrajectoryStore, options: SamplerOptions
    ) -> None:
        from asced_analysis.replay.decoding import Decoder

        self.network, self.recording = options.network, recording
        self.attributes = store.attributes
        self.pipe = options.sampler(recording)
        self.decoder = Decoder(recording, self.pipe)
        self.strategy = recorded_strategy(store.attributes)
        self.of_others = self.strategy.region == "everywhere"
        self.teacher = self._teacher()
        self.seen = self._find()

    def sample(self, control: Control, paired: PairedRuns) -> PairedRuns:
        """The control's runs beside the recorded ones, with the masks used."""
        from asced_analysis.replay.jobs import Job
        from asced_analysis.replay.planning import at_mask, lookahead_network

        attributes = self.attributes
        seed, soft = int(attributes["correction_seed"]), int(attributes.get("soft") or 0)
        plan = self._plan(control, paired, seed, soft)
        thresholds = None
        if self.strategy.judges_draws:  # judges every new draw
            thresholds = Thresholds.from_dict(attributes["thresholds"])
        start = attributes["start"]
        job = Job(
            recording=self.recording,
            pipe=self.pipe,
            decoder=self.decoder,
            strategy=at_mask(self.strategy),
            target=int(attributes["correction_step"]),
            begin=start if isinstance(start, int) else 0,
            seed=seed,
            plan=plan,
            thresholds=thresholds,
            network=lookahead_network(thresholds, self.pipe, self.network),
            grow=0,
            soft=soft,
            teacher=self.teacher,
        )
        runs = np.array(sorted(plan.masks), np.int64) if self.of_others else paired.runs
        before, after, masks = [], [], []
        with self.recording.threads():
            for begin in range(0, len(runs), AT_ONCE):
                batch = self.recording.select(runs[begin : begin + AT_ONCE])
                samples, facts = job.sample(batch)
                before.append(read_pictures(self.recording.dataset, batch.positions))
                after.append(self.decoder.pictures(samples, batch.runs))
                masks.append(np.asarray(facts["mask"], np.bool_))
        return PairedRuns(
            runs,
            np.concatenate(masks),
            np.full(len(runs), np.nan),
            np.concatenate(before),
            np.concatenate(after),
        )

    def _plan(self, control: Control, paired: PairedRuns, seed: int, soft: int) -> Plan:
        """Whom and where the control corrects.

        Stored masks hold their soft edges: these are taken off, and fade again where they come to.
        """
        from asced_analysis.correction.masks import without_edges
        from asced_analysis.replay.planning import Plan, control_plan, others_plan

        inner = without_edges(paired.masks, soft)
        known = Plan(
            {int(run): mask for run, mask in zip(paired.runs, inner, strict=True)},
            first_flagged=self.seen.first_flagged,
            window=self.seen.window,
        )
        if self.of_others:
            return others_plan(known, self.recording, seed=seed)
        return control_plan(known, control, self.recording, seed=seed)

    def _find(self) -> Plan:
        """When each run was first flagged, for strategies that go by it: a control must as well."""
        from asced_analysis.replay.planning import Plan, detect_recorded, lookahead_network

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
            network=lookahead_network(thresholds, self.pipe, self.network),
        )

    def _teacher(self) -> RealismModel | None:
        """Who chose among draws in the replay, if anybody did."""
        name = self.attributes.get("teacher")
        if not self.strategy.chooses:
            return None
        for known in (None, "patches"):
            teacher = choose_judge(known, self.recording.dataset, role="teacher")
            if teacher.name == name:
                return teacher
        raise InputError(
            f"the draws were chosen by {name}, which is not at hand: evaluate without controls "
            "(--no-controls), or replay with another teacher"
        )
