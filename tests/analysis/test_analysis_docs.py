"""Every example of docs/analysis.md runs, in order, as a reader would paste it."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl

from asced_stores.testing import synthetic_store

PAGE = Path(__file__).parents[2] / "docs" / "analysis.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_the_examples_of_the_page_run_in_order(tmp_path, monkeypatch, capsys):
    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    synthetic_store("runs.zarr", runs=32, batch_size=8, steps=16, shape=(1, 12, 12))
    names: dict[str, object] = {"__name__": "page"}  # the cluster has a test of its own
    for block in blocks():
        exec(compile(block, str(PAGE), "exec"), names)
    assert (tmp_path / "run3.png").exists()
    assert "(p = " in capsys.readouterr().out


def test_every_call_of_the_table_exists():
    from asced_analysis.accessor import ScoreAccessor

    calls = re.findall(r"^\| `(\w+)\(", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(calls) == 10
    for name in calls:
        assert hasattr(ScoreAccessor, name)


def test_the_example_with_a_cluster_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    synthetic_store("runs.zarr", runs=16, batch_size=8, steps=8, shape=(1, 8, 8))
    names: dict[str, object] = {"__name__": "__main__"}
    chosen = [blocks()[0], next(block for block in blocks() if "local_cluster" in block)]
    for block in chosen:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["stats"].attrs["runs"] == 16  # type: ignore[attr-defined]
