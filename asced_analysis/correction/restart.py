"""Restart: abandon a run predicted to break, and draw it anew."""

from __future__ import annotations

from dataclasses import dataclass

from asced_analysis.correction.regions import Region
from asced_analysis.correction.strategy import Strategy
from asced_stores.errors import InputError


@dataclass(frozen=True)
class Restart(Strategy):
    """A flagged run is abandoned at ``T_c`` and drawn anew from other noise.

    Costs only the steps already taken. Needs thresholds, since every new draw is judged as well;
    only replay can do it.

    Attributes
    ----------
    tries : int
        Most new draws a run may take; the one of the lowest score is finished.
    """

    name = "restart"
    in_loop = False
    judges_draws = True

    tries: int = 3

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.tries < 1:
            raise InputError(f"tries must be at least 1, not {self.tries}")

    @property
    def region(self) -> Region:
        """A new draw is another image altogether."""
        return "everywhere"


STRATEGY = Restart
