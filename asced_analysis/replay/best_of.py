"""Best of k: several renewals of a flagged run, of which a teacher chooses one on the way."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.halting import HaltedError
from asced_analysis.correction.regions import Region
from asced_analysis.correction.renoise import Renoise
from asced_analysis.correction.strategy import Passes, check_when, step_of
from asced_analysis.replay.recording import Batch
from asced_analysis.replay.sampling import (
    earlier_x0,
    resample,
    resample_from,
    schedule_of,
)
from asced_recorders.pipelines.provenance import execution_device
from asced_recorders.tap.tap import ListenerChain, StepEvent, TapListener
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.correction.corrector import Corrector
    from asced_analysis.replay.jobs import Job
    from asced_recorders.tap.schedulers import StepTable

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class BestOf(Renoise):
    """A flagged run is renewed `draws` times at ``T_c``; a teacher looks, the best one goes on.

    Draw j is what `renoise` with ``seed + j`` gives. The teacher is a realism model: it looks at
    predicted x0 right before step `choose`, and the draw of the smallest mean local distance is
    sampled to its end. Only replay can do it.

    Attributes
    ----------
    where : {"foreground", "everywhere", "mask"} or callable
        As of `Renoise`.
    draws : int
        How many.
    choose : float
        When the choice is made: a step, or a share of sampling below 1.
    """

    name = "best_of"
    in_loop = False
    chooses = True

    where: Region = "foreground"
    draws: int = 2
    choose: float = 0.8

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        if self.draws < 1:
            raise InputError(f"draws must be at least 1, not {self.draws}")
        check_when("choose", self.choose)

    @property
    def title(self) -> str:
        """The number of draws, and of what."""
        return f"best of {self.draws} ({self.one_draw().title})"

    def one_draw(self) -> Renoise:
        """The strategy of each draw."""
        return Renoise(**{one.name: getattr(self, one.name) for one in fields(Renoise)})

    def choosing_step(self, steps: int) -> int:
        """The step whose entering sample is chosen."""
        return step_of(self.choose, steps)

    def check(self, table: StepTable, correction_step: int) -> None:
        """Refuse a choice that is made too early, or too late."""
        super().check(table, correction_step)
        at = self.choosing_step(table.steps)
        last = max([correction_step, *(step_of(when, table.steps) for when in self.renoise_steps)])
        if not last < at <= table.steps:
            raise InputError(
                f"the choice is made at step {at}; expected one after the last edit, which is of "
                f"the sample entering step {last}, and not after the end at {table.steps}"
            )

    def sample_again(self, job: Job, batch: Batch, masks: NDArray[np.bool_]) -> Passes:
        """Renew flagged runs several times, and go on with the most realistic draw of each.

        The runs are sampled up to ``T_c`` once, each draw from there to the choice, and the chosen
        one to its end. Samplers with solver history or noise of their own, and pipelines that are
        called, can't begin anew in the middle at no cost: their draws are whole replays, all of
        them paid for.

        Returns
        -------
        samples : float32 array, shape (n, channel, y, x)
        masks : bool array, shape (n, y, x)
            What was edited.
        evaluations : float64 array, shape (n,)
            Of the denoiser.
        """
        teacher = job.teacher
        assert teacher is not None
        recording = job.recording
        at, steps = self.choosing_step(recording.steps), recording.steps
        table = schedule_of(job.pipe, recording)
        short = table.resumable and recording.is_ours(job.pipe) and recording.has_trajectory
        entering = _entering(job, batch) if short else None
        looks: list[KeptStep] = []
        ends: list[Samples] = []
        for draw in range(self.draws):
            corrector = job.corrector(self.one_draw(), job.seed + draw)
            look = KeptStep(at, stop=short and at < steps)
            end = _draw(job, batch, corrector, look, entering)
            if end is not None:
                ends.append(end)
            looks.append(look)
        views = np.stack([_mean_distance(job, batch, look.x0) for look in looks])
        best = views.argmin(0)
        everyone = np.arange(len(best))
        masks = np.stack([report.mask for report in corrector.report])
        if ends:
            paid = (steps - job.begin + job.extra) * self.draws
            if short:  # chosen at the end
                paid = job.target - job.begin + self.draws * (steps - job.target)
            return np.stack(ends)[best, everyone], masks, np.full(len(best), float(paid))
        going_on = torch.stack([_kept(look) for look in looks])[torch.from_numpy(best), everyone]
        going_on = going_on.to(execution_device(job.pipe))
        samples = resample_from(recording, batch, job.pipe, going_on, at)
        paid = job.target - job.begin + self.draws * (at - job.target) + steps - at
        return samples, masks, np.full(len(best), float(paid))


class KeptStep(TapListener):
    """Keeps what is predicted right before a step, and the sample that enters it.

    Parameters
    ----------
    step : int
    stop : bool
        Abandon the batch there.
    """

    def __init__(self, step: int, *, stop: bool) -> None:
        self.step = step
        self.stop = stop
        self.x0: Tensor | None = None
        self.entering: Tensor | None = None

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Look, and abandon the batch if that is all that is wanted."""
        if event.step + 1 == self.step:
            self.x0, self.entering = event.x0.float().cpu(), next_sample.float().clone()
            if self.stop:
                raise HaltedError
        return None


def _entering(job: Job, batch: Batch) -> Tensor:
    """Samples entering ``T_c``: the recorded checkpoint where sampling begins there."""
    if job.begin == job.target:
        return torch.from_numpy(job.recording.checkpoint(batch, job.target)).to(
            execution_device(job.pipe)
        )
    look = KeptStep(job.target, stop=True)
    with suppress(HaltedError):
        resample(job.recording, batch, job.pipe, start=job.begin, listener=look)
    return _kept(look)


def _draw(
    job: Job, batch: Batch, corrector: Corrector, look: KeptStep, entering: Tensor | None
) -> Samples | None:
    """One draw: its ends, or None where it was abandoned at the choice."""
    assert job.plan is not None
    given: dict[str, Any] = job.plan.assignment(batch, job.shape)
    begin = job.begin if entering is None else job.target
    corrector.assign(
        batch.runs, x0=earlier_x0(job.recording, batch, begin, execution_device(job.pipe)), **given
    )
    chain = ListenerChain(corrector, look)
    with suppress(HaltedError):
        if entering is None:
            return resample(
                job.recording,
                batch,
                job.pipe,
                start=begin,
                corrector=corrector,
                listener=chain,
            )
        return resample_from(
            job.recording, batch, job.pipe, entering, begin, corrector=corrector, listener=chain
        )
    return None


def _kept(look: KeptStep) -> Tensor:
    """The sample that was waited for."""
    if look.entering is None:
        raise InputError(f"the run never came to step {look.step}")
    return look.entering


def _mean_distance(job: Job, batch: Batch, x0: Tensor | None) -> NDArray[np.float64]:
    """Mean local distance of each run, as the teacher sees its predicted x0, decoded if need be."""
    from asced_analysis.realism.local import local_realism

    assert x0 is not None
    assert job.teacher is not None
    seen = job.decoder.pictures(x0.numpy(), batch.runs)
    distance = local_realism(seen, job.teacher, runs=batch.runs)
    return np.asarray(distance.mean((1, 2), dtype=np.float64))


STRATEGY = BestOf
