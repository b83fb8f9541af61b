"""Repair on the 25-Gaussian grid: corrections, and how their figures are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.correction import grid_repair
from experiments.correction.grid_repair import Cell, Grid, correct, figures, mean, recall
from experiments.datasets import gaussian_grid
from experiments.tables import correction_tables


@pytest.fixture(scope="module")
def grid() -> Grid:
    return Grid(0.0, False, 300, seed=1)


def test_sampling_on_from_a_step_ends_where_the_whole_run_does() -> None:
    ends, eps, x0 = gaussian_grid.sample(40, 0.0, seed=3)
    alpha, sigma = gaussian_grid.schedule()
    entering = alpha[44] * x0[:, 43] + sigma[44] * eps[:, 43]
    again, late_eps, late_x0 = gaussian_grid.sample_on(entering, 44, 0.0)
    np.testing.assert_array_equal(again, ends)
    np.testing.assert_array_equal(late_eps, eps[:, 44:])
    np.testing.assert_array_equal(late_x0, x0[:, 44:])
    assert gaussian_grid.schedule(100)[0][1::2] == pytest.approx(alpha, rel=0.05)


def test_only_flagged_points_move_and_as_many_are_flagged_as_break(grid: Grid) -> None:
    wanted = round(float(grid.level.broken.mean()) * 300)
    assert wanted > 5
    for name in ("re-noise at step 44", "best of two from step 44, chosen at 48"):
        for whom in ("learnt", "fixed", "chance", "hindsight"):
            cell = correct(grid, name, whom)
            assert cell.flagged.sum() == wanted
            same = ~cell.flagged
            np.testing.assert_array_equal(cell.after[same], cell.before[same])
            np.testing.assert_array_equal(cell.modes_after[same], cell.modes_before[same])
            assert (cell.extra[same] == 0).all()
            assert (cell.extra[cell.flagged] == (0 if "re-noise" in name else 4)).all()


def test_hindsight_flags_what_is_broken_and_a_second_draw_repairs_it(grid: Grid) -> None:
    cell = correct(grid, "from step 48 back to 44, until predicted whole", "hindsight")
    assert cell.before[cell.flagged].mean() > 0.9 or cell.flagged[cell.before].all()
    assert cell.after[cell.flagged & cell.before].mean() < 0.3
    assert set(cell.extra[cell.flagged]) <= {4.0, 8.0, 12.0, 16.0}


def test_restart_pays_the_steps_of_every_try(grid: Grid) -> None:
    cell = correct(grid, "restart, judged at step 44", "chance")
    paid = cell.extra[cell.flagged]
    assert set(paid) <= {44.0, 88.0, 132.0, 176.0}
    assert paid.min() == 44


def test_figures_count_repair_harm_and_cost() -> None:
    before = np.array([1, 1, 1, 0, 0, 0, 0, 0], np.bool_)
    after = np.array([0, 1, 1, 1, 0, 0, 0, 0], np.bool_)
    flagged = np.array([1, 1, 0, 1, 1, 0, 0, 0], np.bool_)
    where = np.arange(8)
    extra = flagged * 4.0
    modes = (np.where(before, -1, where), np.where(after, -1, where))
    cell = Cell(before, after, flagged, *modes, extra, "test")
    idle = Cell(before, before, flagged, modes[0], modes[0], extra, "idle")
    found = figures([cell], [idle], [cell])
    assert found["repaired"]["value"] == 0.5
    assert found["repaired_of_all_broken"]["value"] == pytest.approx(1 / 3)
    assert found["harmed"]["value"] == pytest.approx(1 / 5)
    assert found["flagged_broken"]["value"] == 0.5
    assert found["broken"]["value"] == 3 / 8
    assert found["against_chance"]["value"] == 0
    assert found["against_everybody"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["modes"] == 5
    assert found["evaluations"] == gaussian_grid.STEPS + 2


def test_recall_is_what_the_whole_points_cover() -> None:
    assert recall(np.repeat(np.arange(25), 40))["value"] == pytest.approx(1)
    few = np.repeat(np.arange(5), 200)
    assert recall(few)["value"] == pytest.approx(0.2)
    assert recall(np.append(few, [-1, -1]))["value"] == pytest.approx(0.2)
    every = np.repeat(np.arange(25), 40)
    lost = recall(few, every)
    assert lost["value"] == pytest.approx(-0.8)
    assert lost["high"] is not None
    assert lost["high"] < -0.7


def test_interval_of_a_share_covers_it() -> None:
    found = mean(np.arange(1000) < 300)
    assert found["value"] == 0.3
    assert found["low"] == pytest.approx(0.3 - 1.96 * np.sqrt(0.21 / 1000), abs=0.004)
    assert found["high"] == pytest.approx(0.3 + 1.96 * np.sqrt(0.21 / 1000), abs=0.004)


def test_dials_are_kept_and_written_as_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_repair, "DIALS", {"score, 0.05": (0.0, False)})
    monkeypatch.setattr(grid_repair, "SEEDS", (0,))
    few = {name: grid_repair.CORRECTIONS[name] for name in correction_tables.CORRECTED}
    monkeypatch.setattr(grid_repair, "CORRECTIONS", few)
    said: list[str] = []
    found = grid_repair.measure(200, tmp_path, said.append)
    row = found["dials"]["score, 0.05"]["rows"]["from step 48 back to 44"]
    assert row["hindsight"]["repaired"]["value"] > 0.5
    assert row["everybody"]["flagged"] == 1
    assert row["learnt"]["flagged"] == row["chance"]["flagged"]
    assert len(said) == 2
    assert grid_repair.measure(200, tmp_path, said.append) == found
    assert len(said) == 2
    whole = correction_tables.grid_repair({"grid-repair": found}).splitlines()
    assert {line.count("|") for line in whole} == {12}
    assert len(whole) == 2 + 1 + 2 * len(grid_repair.WHOM)
    short = correction_tables.grid_repair_dials({"grid-repair": found}).splitlines()
    broken = 100 * row["learnt"]["broken"]["value"]
    assert f"| {broken:.1f} % (" in short[2]
    assert len(short) == 2 + len(correction_tables.CORRECTED)
