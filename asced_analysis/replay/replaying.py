"""Re-run recorded runs with a correction and write a store beside the recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from asced_analysis.correction.controls import Control
from asced_analysis.correction.environment import differences, matching_pipeline, recorded_threads
from asced_analysis.correction.lookahead import Network
from asced_analysis.correction.loops import Loop, in_place_of
from asced_analysis.correction.settings import correction_settings, correction_step, strategy_of
from asced_analysis.correction.strategy import Strategy
from asced_analysis.replay.agreement import check_came_back
from asced_analysis.replay.calls import likely_missing, repeat_calls
from asced_analysis.replay.jobs import Job
from asced_analysis.replay.paired_store import Regrouped, replay_spec, write_runs
from asced_analysis.replay.planning import (
    Plan,
    controlled,
    detect_recorded,
    given_plan,
    lookahead_network,
)
from asced_analysis.replay.recording import Call, Recording
from asced_analysis.replay.resuming import replay_store
from asced_analysis.replay.sampling import check_start, schedule_of
from asced_analysis.thresholds.document import Thresholds, fingerprint_of
from asced_stores import TrajectoryStore
from asced_stores.backends.opening import check_apart
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.realism import RealismModel

REGROUPED = 64  # runs


def replay(
    store: TrajectoryStore | str | Path,
    out: str | Path,
    *,
    thresholds: Thresholds | str | Path | None = None,
    strategy: str | Strategy | None = None,
    start: Literal["init"] | int = "init",
    control: Control | None = None,
    pipeline: Any = None,
    loop: Loop | str | None = None,
    call: Call | None = None,
    call_options: Mapping[str, Any] | None = None,
    network: Network | None = None,
    teacher: str | RealismModel | None = None,
    masks: Any = None,
    step: int | None = None,
    seed: int | None = None,
    grow: int | None = None,
    soft: int = 0,
    only_flagged: bool = False,
    batch_size: int | None = None,
    threads: int | None = None,
    override: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **parameters: Any,
) -> TrajectoryStore:
    """Sample recorded runs again from the same noise, with a correction in the loop.

    Parameters
    ----------
    store : TrajectoryStore or path
        The recording; it must hold x_init and sample.
    out : path
        Of the new store, with the same batches and slots, run by run beside the recording.
    thresholds : Thresholds or path, optional
        Whom, where and when to correct. Not needed with `masks` or with strategy ``none``.
    strategy : str or Strategy, optional
        One of `asced_analysis.correction.STRATEGIES`; ``none`` brings the recording back. By
        default the thresholds' own, with their parameters; ``ttc`` with masks alone.
    start : "init" or int
        A recorded checkpoint, from which only the remaining steps are paid for.
    control : {"shuffled", "foreground", "everywhere"}, optional
        Correct the same runs at the wrong place. Of a strategy that takes whole runs (`restart`,
        `noise_normalisation`, `renoise` and `best_of` everywhere) ``shuffled`` corrects as many
        others.
    pipeline : DiffusionPipeline or str, optional
        By default the one that the store names.
    loop : callable or str, optional
        A sampling loop of your own in the place of a pipeline, or its ``module:function``:
        ``loop(x_init, step)`` samples from `x_init`, goes on with what ``step(sample=,
        model_output=, alpha=, sigma=, prediction_type=, next_sample=)`` returns, and returns the
        end. ``step.seeds``, ``step.runs`` and ``step.scalars`` say what is sampled.
    call : callable, optional
        ``call(pipe, batch)`` repeats the recorded call of a pipeline that takes prompts or other
        options, where the store does not hold them all: ``batch.seeds``, ``batch.runs`` and
        ``batch.scalars`` say what was sampled together.
    call_options : mapping, optional
        Arguments that the store does not hold (images, ...), added to the recorded call. A function
        is called with each batch: ``lambda batch: [images[run] for run in batch.runs]``.
    network : callable, optional
        For thresholds with a lookahead: ``network(sample, table, step)`` gives predicted x0.
        By default that of an unconditional pipeline.
    teacher : {"teacher", "patches"} or RealismModel, optional
        Who chooses among several draws (``best_of``): by default the embedded teacher for the
        embedded `fashion`, else patches of the recorded population's own samples. It looks at
        predicted x0 in the space that is sampled in: at the latents of a latent model.
    masks : mapping of run to bool array (y, x), or bool array (run, y, x), optional
        Masks from outside; runs with an empty mask are left alone.
    step : int, optional
        ``T_c``, instead of that of the thresholds.
    seed : int, optional
        Of the correction's noise; a run's noise depends on this and its number alone.
    grow : int, optional
        Pixels by which masks are grown, in place of the thresholds' fraction.
    soft : int
        Pixels over which the masks' edges fade.
    only_flagged : bool
        Sample flagged runs alone, together: much less work, and last bits may differ from a replay
        in the recorded batches. All others are copied from the recording.
    batch_size : int, optional
        Sample so many runs together instead of the recorded batches; what that changes in the last
        bits is measured (`exactness`).
    threads : int, optional
        Use so many threads of torch instead of the recorded number; the same holds.
    override : bool
        Use thresholds of another model all the same.
    overwrite : bool
        Replace `out` if it exists.
    resume : bool
        Go on with an `out` that was interrupted; its whole batches stay as they are, and the rest
        comes out as if nothing had happened.
    progress : callable, optional
        Called with batches done and batches in all.
    **parameters
        Of the strategy.

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
        control without a correction; for an `out` that is the recording, or lies in it.

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
    thresholds = _load(thresholds)
    if thresholds is not None and not override:
        thresholds.check_fingerprint(
            fingerprint_of(recording.attributes, recording.spec.sample_shape)
        )
    chosen = strategy_of(thresholds, strategy, parameters)
    if not chosen.edits and control is not None:
        raise InputError("a control needs a correction: choose a strategy other than none")
    if chosen.edits and thresholds is None and masks is None:
        raise InputError(
            f"strategy {chosen.name} needs thresholds (`asced calibrate` makes them) or masks; "
            "strategy none needs neither"
        )
    recording.check_uncorrected(chosen)
    pipe = matching_pipeline(recording.attributes, in_place_of(pipeline, loop))
    repeat_calls(recording, pipe, call, call_options)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size is {batch_size}: expected at least 1")
    with recorded_threads(recording.attributes, threads):
        table = schedule_of(pipe, recording)
        if not chosen.edits:  # any sampler will do
            target = start if isinstance(start, int) else 0
        else:
            target = correction_step(thresholds, table) if step is None else step
        begin = check_start(recording, table, start, target, chosen)
        chosen.check(table, target)
        lookahead = lookahead_network(thresholds if masks is None else None, pipe, network)
        plan = _plan(
            recording, thresholds, masks, control, target, chosen, begin or only_flagged, lookahead
        )
        if control is not None:
            assert plan is not None
            own = _seed(thresholds, seed)
            plan, chosen = controlled(plan, chosen, control, recording, step=target, seed=own)
        job = Job(
            recording=recording,
            pipe=pipe,
            strategy=chosen,
            thresholds=thresholds,
            plan=plan,
            target=target,
            begin=begin,
            seed=_seed(thresholds, seed),
            grow=grow,
            soft=soft,
            network=lookahead,
            teacher=_teacher(teacher, chosen, recording),
        )
        conditions = differences(recording.attributes, pipe, batch_size=batch_size)
        replayed = replay_store(
            out,
            replay_spec(job, control, start, conditions, only_flagged),
            recording,
            runs=recording.store.planned_runs,
            batch_size=recording.store.batch_size,
            overwrite=overwrite,
            resume=resume,
        )
        together = None
        if only_flagged:
            if plan is None and chosen.edits:
                raise InputError("only_flagged needs masks known beforehand: record eps and x0")
            flagged = [] if plan is None else sorted(plan.masks)
            together = Regrouped(job, flagged, batch_size or REGROUPED)
        elif batch_size is not None:
            together = Regrouped(job, recording.dataset["run"].values.tolist(), batch_size)
        write_runs(replayed, job, copy_rest=not conditions, together=together, progress=progress)
    given = tuple(call_options or ())
    likely = likely_missing(recording, pipe, called=call is not None, given=given)
    check_came_back(replayed, likely)
    return replayed


def _plan(
    recording: Recording,
    thresholds: Thresholds | None,
    masks: Any,
    control: Control | None,
    target: int,
    strategy: Strategy,
    beforehand: Any,
    network: Network | None,
) -> Plan | None:
    """Find out whom to edit where; None means: in the loop."""
    if not strategy.edits:
        return None
    if masks is not None:
        return given_plan(masks, recording)
    if recording.has_trajectory:
        assert thresholds is not None
        if strategy.streams_masks and control is None and not beforehand:
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


def _load(thresholds: Thresholds | str | Path | None) -> Thresholds | None:
    """Read thresholds from a file unless they are read already."""
    if thresholds is None or not isinstance(thresholds, (str, Path)):
        return thresholds
    return Thresholds.load(thresholds)


def _seed(thresholds: Thresholds | None, seed: int | None) -> int:
    """Seed of the correction's noise."""
    return int(correction_settings(thresholds).get("seed", 0)) if seed is None else seed
