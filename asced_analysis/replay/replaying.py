"""Re-run recorded runs with a correction and write a store beside the recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asced_analysis.correction.controls import Control
from asced_analysis.correction.detecting import Network
from asced_analysis.correction.registry import known_parameters
from asced_analysis.correction.settings import correction_settings, correction_step, strategy_of
from asced_analysis.correction.strategy import Strategy
from asced_analysis.replay.agreement import check_reproduced
from asced_analysis.replay.calls import likely_missing
from asced_analysis.replay.decoding import Decoder
from asced_analysis.replay.jobs import Job
from asced_analysis.replay.options import ReplayOptions
from asced_analysis.replay.paired_store import Regrouped, replay_spec, write_runs
from asced_analysis.replay.planning import (
    Plan,
    controlled,
    detect_recorded,
    given_plan,
    lookahead_network,
)
from asced_analysis.replay.recording import Recording
from asced_analysis.replay.resuming import replay_store
from asced_analysis.replay.sampling import check_start, schedule_of
from asced_analysis.thresholds.document import Thresholds, fingerprint_of
from asced_recorders.pipelines.environment import differences
from asced_stores import TrajectoryStore
from asced_stores.backends.opening import check_apart
from asced_stores.errors import InputError, nearest
from asced_stores.options import check_names, takes_others

if TYPE_CHECKING:
    from asced_analysis.realism import RealismModel

REGROUPED = 64  # runs


@takes_others(ReplayOptions)
def replay(
    store: TrajectoryStore | str | Path, out: str | Path, options: ReplayOptions
) -> TrajectoryStore:
    """Sample recorded runs again from the same noise, with a correction in the loop.

    Parameters
    ----------
    store : TrajectoryStore or path
        The recording; it must hold x_init and sample.
    out : path
        Of the new store, with the same batches and slots, each run paired with the recorded one.
    options : ReplayOptions
        Each by keyword.

    Returns
    -------
    TrajectoryStore
        With `sample` and `image`, and by run `mask`, `flagged`, `score`, `changed` (share of
        pixels that differ visibly from the recorded run's), `difference` (largest difference from
        it) and `evaluations` (of the denoiser, paid for by this run). Attributes: `replay_of`,
        `thresholds`, `strategy`, `control`, `start`, `replay_conditions`.

    Raises
    ------
    InputError
        For another model, a step that is no checkpoint, a sampler that cannot start there, a
        control without a correction; for an `out` that is the recording, or lies in it; for a
        pipeline that does not give the recorded images of the recorded samples.

    NotReproducedError
        Where unedited runs did not come back under the recording's own conditions.

    Examples
    --------
    >>> from asced_analysis.replay import exactness, replay
    >>> replayed = replay("runs.zarr", "again.zarr", thresholds="thresholds.json", start=5)
    >>> exactness(replayed).bit_exact
    True
    """
    recording = Recording(store)
    check_apart(out, [recording.store.backend])
    thresholds = options.thresholds
    if isinstance(thresholds, (str, Path)):
        thresholds = Thresholds.load(thresholds)
    if thresholds is not None and not options.override:
        thresholds.check_fingerprint(
            fingerprint_of(recording.attributes, recording.spec.sample_shape)
        )
    meant = {name for name in options.parameters if nearest(name, vars(options))}
    check_names(meant - known_parameters(), vars(options), "replay")
    chosen = strategy_of(thresholds, options.strategy, dict(options.parameters))
    control = options.control
    if not chosen.edits and control is not None:
        raise InputError("a control needs a correction: choose a strategy other than none")
    if chosen.edits and thresholds is None and options.masks is None:
        raise InputError(
            f"strategy {chosen.name} needs thresholds (`asced calibrate` makes them) or masks; "
            "strategy none needs neither"
        )
    recording.check_uncorrected(chosen)
    pipe = options.sampler(recording)
    seed = options.seed
    if seed is None:
        seed = int(correction_settings(thresholds).get("seed", 0))
    with recording.threads(options.threads):
        table = schedule_of(pipe, recording)
        if not chosen.edits:  # any sampler will do
            target = options.start if isinstance(options.start, int) else 0
        else:
            target = correction_step(thresholds, table) if options.step is None else options.step
        begin = check_start(recording, table, options.start, target, chosen)
        chosen.check(table, target)
        detecting = thresholds if options.masks is None else None
        lookahead = lookahead_network(detecting, pipe, options.network)
        decoder = Decoder(recording, pipe)
        plan = None
        if chosen.edits and options.masks is not None:
            plan = given_plan(options.masks, recording)
        elif chosen.edits:
            assert thresholds is not None
            beforehand = bool(begin or options.only_flagged or control)
            plan = _plan(recording, thresholds, target, chosen, beforehand, control, lookahead)
        if control is not None:
            assert plan is not None
            plan, chosen = controlled(plan, chosen, control, recording, step=target, seed=seed)
        job = Job(
            recording=recording,
            pipe=pipe,
            decoder=decoder,
            strategy=chosen,
            thresholds=thresholds,
            plan=plan,
            target=target,
            begin=begin,
            seed=seed,
            grow=options.grow,
            soft=options.soft,
            network=lookahead,
            teacher=_teacher(options.teacher, chosen, recording),
        )
        conditions = differences(recording.attributes, pipe, batch_size=options.batch_size)
        replayed = replay_store(
            out,
            replay_spec(job, options, conditions),
            recording,
            runs=recording.store.planned_runs,
            batch_size=recording.store.batch_size,
            overwrite=options.overwrite,
            resume=options.resume,
        )
        together = None
        if options.only_flagged:
            if plan is None and chosen.edits:
                raise InputError("only_flagged needs masks known beforehand: record eps and x0")
            flagged = [] if plan is None else sorted(plan.masks)
            together = Regrouped(job, flagged, options.batch_size or REGROUPED)
        elif options.batch_size is not None:
            runs = recording.dataset["run"].values.tolist()
            together = Regrouped(job, runs, options.batch_size)
        write_runs(
            replayed, job, copy_rest=not conditions, together=together, progress=options.progress
        )
    given = tuple(options.call_options or ())
    called = options.call is not None
    check_reproduced(replayed, likely_missing(recording, pipe, called=called, given=given))
    return replayed


def _plan(
    recording: Recording,
    thresholds: Thresholds,
    target: int,
    strategy: Strategy,
    beforehand: bool,
    control: Control | None,
    network: Network | None,
) -> Plan | None:
    """Find out whom to edit where; None means: in the loop."""
    if recording.has_trajectory:
        if strategy.streams_masks and not beforehand:
            return None
        return detect_recorded(
            recording,
            thresholds,
            last_step=target - 1,
            streamed=strategy.streams_masks,
            network=network,
        )
    if control is not None or not strategy.in_loop:
        raise InputError(
            f"{control or strategy.name} needs to know every run's mask beforehand, and "
            f"{recording.store.path} holds neither eps nor x0; record them, or give masks"
        )
    return None


def _teacher(
    teacher: str | RealismModel | None, strategy: Strategy, recording: Recording
) -> RealismModel | None:
    """Who chooses among draws, where there are several."""
    if not strategy.chooses:
        return None
    from asced_analysis.realism.judges import choose_judge

    return choose_judge(teacher, recording.dataset, role="teacher")
