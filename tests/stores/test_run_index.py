"""The index of runs: which rows a choice of runs means."""

from __future__ import annotations

import numpy as np
import pytest

from asced_stores.errors import InputError
from asced_stores.format.index import RunIndex

INDEX = RunIndex(
    {
        "run": np.array([7, 3, 12, 0, 5]),  # as in a merged store
        "status": np.array([1, 1, 2, 1, 1], np.uint8),
        "batch": np.array([0, 0, 1, 1, 2]),
    }
)
RISING = RunIndex({"run": np.arange(5) * 2, "status": np.ones(5, np.uint8)})


@pytest.mark.parametrize("chosen", [[0, 7], [7, 0], [7, 7, 0], np.array([0, 7], np.uint8)])
def test_numbers_choose_runs_in_the_order_of_the_store(chosen: list[int]) -> None:
    assert INDEX.select(chosen)["run"].tolist() == [7, 0]


def test_numbers_that_rise_are_found_too() -> None:
    assert RISING.select([4, 0])["run"].tolist() == [0, 4]
    assert RISING.select([])["run"].tolist() == []


@pytest.mark.parametrize("index", [INDEX, RISING])
def test_a_run_that_is_not_there_is_named(index: RunIndex) -> None:
    with pytest.raises(InputError, match=r"1 of the 2 selected runs .* run 99"):
        index.select([0, 99])


def test_statuses_leave_out_the_others() -> None:
    assert INDEX.with_status(["complete"])["run"].tolist() == [7, 3, 0, 5]
    assert INDEX.with_status(["failed"])["run"].tolist() == [12]
    assert INDEX.with_status(["complete", "failed"]) is INDEX
