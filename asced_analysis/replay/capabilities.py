"""What can be corrected and replayed on a pipeline's sampler, before anything was recorded."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from asced_analysis.correction.settings import correction_step
from asced_analysis.detection.window import (
    FEWEST_STEPS,
    WINDOW,
    window_and_correction,
)
from asced_analysis.thresholds.registries import STRATEGIES
from asced_recorders.recording.checks import Check
from asced_recorders.tap.schedulers import StepTable, step_table
from asced_stores.errors import InputError

FEW = 8
"""Below so many steps thresholds look at one change alone."""


def capabilities(pipe: Any, count: int) -> Iterator[Check]:
    """Say which corrections last on this sampler, and where replays may begin.

    Parameters
    ----------
    pipe : DiffusionPipeline
        Its scheduler is left as it is.
    count : int
        Steps of a run.

    Yields
    ------
    asced_recorders.recording.checks.Check
    """
    table = schedule_of(pipe, count)
    if isinstance(table, InputError):
        yield Check("correction", "problem", str(table))
        return
    if not table.editable[1:].any():
        yield Check("correction", "warning", f"{table.scheduler_class} allows no step to be edited")
    else:
        target = correction_step(None, table)
        lasting: list[str] = []
        several: list[str] = []
        refused: list[str] = []
        for name in STRATEGIES:
            strategy = STRATEGIES.get(name)()
            if not strategy.edits:
                continue
            try:
                strategy.check(table, target)
            except InputError as error:
                refused.append(f"{name} ({error})")
                continue
            (lasting if strategy.in_loop else several).append(name)
        yield Check("in the loop", "ok", f"at step {target} of {table.steps}: {_listed(lasting)}")
        yield Check("in replay only", "ok", f"{_listed(several)} (they sample a run again)")
        if refused:
            yield Check("refused", "warning", "; ".join(refused))
    begin = (
        "from any checkpoint, or from the beginning"
        if table.resumable
        else "from the beginning: the sampler draws noise or remembers more than a checkpoint holds"
    )
    yield Check("replay", "ok", begin)
    if table.steps < FEWEST_STEPS:
        yield Check("detection", "warning", "one step: nothing changes that could be looked at")
        return
    (first, last), correction = window_and_correction(table, WINDOW, "ttc")
    seen = f"thresholds look at steps {first} to {last} of {table.steps}"
    if not STRATEGIES.get(correction.strategy).edits:
        yield Check("detection", "warning", f"{seen}, and none is left to correct at")
    elif table.steps < FEW:
        yield Check("detection", "warning", f"{seen}, which is little: sample in more if you can")
    else:
        yield Check("detection", "ok", f"{seen}, unless --window says otherwise")


def schedule_of(pipe: Any, steps: int) -> StepTable | InputError:
    """The sampler's steps, or why they are not known; of one that needs more, those set last."""
    scheduler = copy.deepcopy(pipe.scheduler)
    try:
        scheduler.set_timesteps(steps)
    except (ValueError, TypeError):  # what only the pipeline's call knows, such as a shift
        scheduler = pipe.scheduler
    try:
        return step_table(scheduler)
    except InputError as error:
        return error


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
