"""What chooses runs among several draws: a protocol, which `asced_analysis.correction` fulfils."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


class Chosen(Protocol):
    """What was finished: `output` as the call returned it, and `chosen` among the draws."""

    output: Any
    chosen: NDArray[np.int64]


class Pruning(Protocol):
    """Draws several runs, looks early, and finishes some (`asced_analysis.correction.Pruner`)."""

    draw: int
    finish: int

    def facts(self) -> dict[str, Any]:
        """Say who chooses, for the store."""

    def prune(
        self,
        pipe: Any,
        call: Callable[[NDArray[np.int64], list[torch.Generator]], Any],
        seeds: Sequence[int],
        group: NDArray[np.int64] | None,
    ) -> Chosen:
        """Sample all draws to the look by ``call(rows, generators)``, then the chosen to the end.

        `group` says who competes with whom; None: draws of equal content.
        """
