"""Every public name has an example, and every example runs, in a folder with a real recording."""

from __future__ import annotations

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("agg")

# Names of a package's `__all__` that are values, not functions or classes, have no docstring.
PACKAGES = (
    "asced_stores",
    "asced_recorders",
    "asced_analysis",
    "asced_analysis.calibration",
    "asced_analysis.correction",
    "asced_analysis.detection",
    "asced_analysis.evaluation",
    "asced_analysis.export",
    "asced_analysis.monitoring",
    "asced_analysis.plots",
    "asced_analysis.realism",
    "asced_analysis.replay",
    "asced_analysis.report",
)
RUNS, STEPS = 48, 12


def public() -> Iterator[tuple[str, Any]]:
    """Every public function and class, once, by the name under which it is imported."""
    from asced_analysis.accessor import ScoreAccessor
    from asced_analysis.detection import VARIANTS
    from asced_recorders.custom.loop import CustomRecorder

    seen = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                seen.setdefault(id(thing), (f"{package}.{name}", thing))
    yield from seen.values()
    yield "ds.asced", ScoreAccessor
    yield "asced_recorders.custom.loop.CustomRecorder", CustomRecorder
    for variant in VARIANTS:
        module = importlib.import_module(f"asced_analysis.detection.{variant}")
        yield f"asced_analysis.detection.{variant}.artifact_mask", module.artifact_mask


PUBLIC = dict(public())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs.zarr``, ``thresholds.json``, ``corrected.zarr`` and results."""
    from asced_analysis import calibrate, evaluate
    from asced_analysis.evaluation import try_remedies
    from asced_analysis.replay import replay
    from asced_recorders import record
    from asced_stores.files import write_json

    folder = tmp_path_factory.mktemp("examples")
    record("fashion", folder / "runs.zarr", runs=RUNS, steps=STEPS, batch_size=16, checkpoints=(5,))
    thresholds = calibrate(folder / "runs.zarr", false_alarm_rate=0.2)
    thresholds.save(folder / "thresholds.json")
    mask = np.zeros((32, 32), bool)
    mask[8:16, 10:20] = True
    replay(
        folder / "runs.zarr",
        folder / "corrected.zarr",
        masks={0: mask, 1: mask.T, 2: mask},
        step=5,
        start=5,
    )
    evaluation = evaluate(folder / "runs.zarr", folder / "corrected.zarr", controls=False)
    evaluation.save(folder / "evaluation.json")
    found = try_remedies(folder / "runs.zarr", budget=14, runs=8)
    write_json(folder / "remedies.json", found.to_dict())
    return folder


def test_there_are_many() -> None:
    assert len(PUBLIC) >= 60


def test_every_name_stands_in_the_reference() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
    names = {
        "ds.asced": "asced_analysis.accessor.ScoreAccessor",
        "asced_analysis.audit": "asced_analysis.audit.audit",  # the room is called as its function
    }
    missing = [name for name in PUBLIC if f":: {names.get(name, name)}\n" not in text]
    assert not missing


def example_of(name: str) -> doctest.DocTest:
    docstring = inspect.getdoc(PUBLIC[name]) or ""
    assert "\nExamples\n--------\n" in docstring, f"{name} has no example"
    return doctest.DocTestParser().get_doctest(docstring, {}, name, None, None)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_has_an_example_and_none_is_left_out(name: str) -> None:
    test = example_of(name)
    assert test.examples
    assert not any(doctest.SKIP in example.options for example in test.examples)


@pytest.mark.pages
@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.xdist_group("examples")
def test_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    test = example_of(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
