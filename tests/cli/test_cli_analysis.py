"""``asced stats`` and ``asced phases`` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from asced_analysis.statistics.by_step import step_statistics
from asced_analysis.statistics.saving import load
from asced_cli.main import run
from asced_stores import open_runs
from asced_stores.testing import synthetic_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "runs.zarr"
    synthetic_store(path, runs=12, batch_size=4, steps=12, shape=(1, 10, 10))
    return path


def test_stats_prints_a_table_and_writes_what_can_be_added_to(store, tmp_path, capsys):
    out = tmp_path / "stats.zarr"
    assert run(["stats", str(store), "--out", str(out), "--plot", str(tmp_path / "a.png")]) == 0
    printed = capsys.readouterr().out
    assert "median" in printed
    assert "99 %" in printed
    assert len(printed.splitlines()) == 4 + 11 + 2  # the last two say what was written
    expected = step_statistics(open_runs(store))
    np.testing.assert_array_equal(load(out)["median"], expected["median"])
    assert (tmp_path / "a.png").exists()
    assert run(["stats", str(store), "--add", str(out), "--json"]) == 0
    twice = json.loads(capsys.readouterr().out)
    assert twice["runs"] == 24
    assert twice["count"] == (2 * expected["count"].values).tolist()
    np.testing.assert_allclose(twice["median"], expected["median"], rtol=5e-4)


def test_stats_by_group_as_json(store, capsys):
    assert run(["stats", str(store), "--by", "batch", "--quantiles", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert np.shape(found["median"]) == (3, 11)
    assert np.shape(found["quantile"]) == (1, 3, 11)
    assert run(["stats", str(store), "--by", "batch"]) == 0
    assert "3 by batch" in capsys.readouterr().out


def test_phases_prints_writes_and_draws(store, tmp_path, capsys):
    out, plot = tmp_path / "phases.json", tmp_path / "phases.svg"
    assert run(["phases", str(store), "--out", str(out), "--plot", str(plot)]) == 0
    printed = capsys.readouterr().out
    assert "Profiling | Mutation" in printed
    assert "(p = " in printed
    assert printed.splitlines()[-1].split()[-1] == str(plot)
    assert plot.read_text(encoding="utf-8").startswith("<?xml")
    assert run(["phases", str(store), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["population"] == json.loads(out.read_text())["population"]
    assert load(out).runs == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats", "nowhere.zarr"], "nowhere.zarr"),
        (["stats", "STORE", "--quantiles", "half"], "expected numbers like"),
        (["stats", "STORE", "--quantiles", "2"], "from 0 to 1"),
        (["stats", "STORE", "--by", "colour"], "no groups by"),
        (["stats", "STORE", "--out", "stats.csv"], "ends in .zarr"),
        (["stats", "STORE", "--add", "nothing.zarr"], "does not exist"),
        (["phases", "STORE", "--out", "phases.png"], "ends in .json"),
        (["phases", "STORE", "--confidence", "95"], "not in the range 0<x<1"),
    ],
)
def test_wrong_input_is_status_2_and_one_line(
    store, arguments, message, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    assert run([str(store) if part == "STORE" else part for part in arguments]) == 2
    streams = capsys.readouterr()
    assert message in streams.err
    assert "Traceback" not in streams.err
    assert not list(tmp_path.iterdir())


def test_existing_results_need_overwrite(store, tmp_path, capsys):
    out = tmp_path / "phases.json"
    out.write_text("mine")
    assert run(["phases", str(store), "--out", str(out)]) == 2
    assert out.read_text() == "mine"
    assert run(["phases", str(store), "--out", str(out), "--overwrite"]) == 0
    assert json.loads(out.read_text())["format"] == "asced-phases"
    plot = tmp_path / "phases.png"
    plot.touch()
    assert run(["phases", str(store), "--plot", str(plot)]) == 2
    capsys.readouterr()
