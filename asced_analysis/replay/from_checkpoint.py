"""Begin a pipeline that is called in the middle of its schedule.

Pipelines prepare their samples where nobody can step in, and each in its own order. So the call is
made as it was recorded, but the network answers the steps before the checkpoint with what it said
at the first one, which costs nothing; then the recorded sample takes the place of what came of it.
One evaluation more than the remaining steps is paid for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from asced_analysis.correction.replaced_networks import denoisers, replaced_forward
from asced_recorders.pipelines.networks import rows_of
from asced_recorders.tap.schedulers import StepTable
from asced_recorders.tap.tap import StepEvent, TapListener
from asced_stores.errors import InputError

Edit = Callable[[StepTable, Tensor], Tensor]


class FromCheckpoint(TapListener):
    """Lets a listener see a run only from a step on, which begins with a given sample.

    Parameters
    ----------
    listener : TapListener or None
    start : int
        At least 1.
    x_start : Tensor, shape (run, [frame,] channel, y, x)
        Enters step `start`.
    edit : callable, optional
        What a corrector does with that sample before the run begins.
    """

    def __init__(
        self, listener: TapListener | None, start: int, x_start: Tensor, edit: Edit | None = None
    ) -> None:
        self.listener = TapListener() if listener is None else listener
        self.start = start
        self.x_start = x_start
        self.edit = edit
        self.waiting = True
        self.table: StepTable | None = None

    def begin(self, table: StepTable) -> None:
        """Wait for the checkpoint."""
        self.table, self.waiting = table, True

    def calling(self, inside: bool) -> None:
        """Pass it on."""
        self.listener.calling(inside)

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Show steps from the checkpoint on."""
        return None if self.waiting else self.listener.before_step(event)

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Put the recorded sample in place; from then on, listen."""
        if not self.waiting:
            return self.listener.after_step(event, next_sample)
        if event.step + 1 < self.start:
            return None
        assert self.table is not None
        sample = self.x_start.to(next_sample)
        if sample.shape != next_sample.shape:
            raise InputError(
                f"the checkpoint has shape {tuple(sample.shape)} where the call has "
                f"{tuple(next_sample.shape)}: repeat the recorded call"
            )
        if self.edit is not None:
            sample = self.edit(self.table, sample)
        self.waiting = False
        self.listener.begin(self.table)
        return sample


@contextmanager
def idle_denoisers(pipe: Any, checkpoint: FromCheckpoint) -> Iterator[None]:
    """Let every network of a pipeline repeat its first answer while steps are skipped."""
    with ExitStack() as stack:
        for network in denoisers(pipe):
            stack.enter_context(replaced_forward(network, _idle(network, checkpoint)))
        yield


def _idle(network: torch.nn.Module, checkpoint: FromCheckpoint) -> Callable[..., Any]:
    """What one network answers."""
    real = network.forward
    first: dict[int, Any] = {}  # by rows: some pipelines give up guidance on their way

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not checkpoint.waiting:
            return real(*args, **kwargs)
        rows = rows_of(args, kwargs)
        if rows not in first:
            first[rows] = real(*args, **kwargs)
        return first[rows]

    return forward
