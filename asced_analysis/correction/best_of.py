"""Best of k: several renewals of a flagged run, of which the most realistic goes on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from asced_analysis.correction.regions import Region
from asced_analysis.correction.renoise import Renoise
from asced_analysis.correction.strategy import check_when, step_of
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_recorders.tap.schedulers import StepTable


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
        last = max([correction_step, *(step_of(when, table.steps) for when in self.again)])
        if not last < at <= table.steps:
            raise InputError(
                f"the choice is made at step {at}; expected one after the last edit, which is of "
                f"the sample entering step {last}, and not after the end at {table.steps}"
            )


STRATEGY = BestOf
