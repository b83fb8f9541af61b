"""What tests of replay share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asced_stores import TrajectoryStore, open_runs


@pytest.fixture(scope="session")
def rounding() -> Callable[[str | Path | TrajectoryStore], float]:
    """How far an edited sample may be from the same one of another batch.

    Predicted x0 is rounded to float16 before it is noised afresh. Where its last bit falls the
    other way, the sample moves by alpha (below 1) of one step of float16, which the later steps of
    these tiny networks do not double.
    """

    def bound(store: str | Path | TrajectoryStore) -> float:
        return 2 * float(np.spacing(np.abs(open_runs(store)["x0"].values).max()))

    return bound
