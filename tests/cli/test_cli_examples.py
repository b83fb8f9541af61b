"""The examples of ``--help`` run as they are printed, in a folder with what they speak of."""

from __future__ import annotations

import itertools
import shlex
import shutil
from pathlib import Path

import pytest
from help_examples import SHELL, command_of, examples, printed, words_of

from asced_cli.main import run
from asced_stores.testing import synthetic_store

STATUS = {
    "asced doctor ./my-model --folder /scratch": 1,
    # the synthetic runs follow no sampler, and the audit says so
    "asced audit runs.zarr": 1,
    "asced audit runs.zarr --plot audit.png --json": 1,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores, thresholds, statistics: what the examples begin with."""
    folder = tmp_path_factory.mktemp("examples")
    for name, seed in (("runs", 0), ("more", 500), ("new", 900), ("monday", 0), ("tuesday", 99)):
        synthetic_store(folder / f"{name}.zarr", runs=300, shape=(1, 8, 8), seed=seed)
    synthetic_store(folder / "euler.zarr", runs=96, steps=8, shape=(1, 8, 8))
    store = str(folder / "runs.zarr")
    assert run(["calibrate", store, "--out", str(folder / "thresholds.json")]) == 0
    assert run(["stats", store, "--out", str(folder / "stats.zarr")]) == 0
    return folder


def test_there_are_many() -> None:
    assert len(list(examples())) >= 20


def test_none_is_missed() -> None:
    """Each is run as printed; a new kind of line has to be run, too."""
    ran = {one.values[0] for kind in (False, True) for one in examples(sampled=kind)}
    lines = printed()
    other = [line for line in lines if line not in ran]
    assert [line for line in other if not line.startswith((*SHELL, "torchrun"))] == []


@pytest.mark.parametrize(
    "line",
    [one.values[0] for one in examples(sampled=True)]
    + [line for line in printed() if line.startswith("torchrun")],
)
def test_an_example_that_samples_is_understood(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each option exists, and takes what is given to it."""
    monkeypatch.chdir(tmp_path)
    name, *words = words_of(line)
    command_of(name).make_context(name, words)


@pytest.mark.pages
@pytest.mark.parametrize("line", list(examples()))
@pytest.mark.xdist_group("help examples")
def test_an_example_runs_as_printed(
    line: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(line)
    outs = {after for word, after in itertools.pairwise(words) if word == "--out"}
    for name in {word for word in words if (made / word).exists()} - outs:
        source = made / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    if ">" in words:
        words = words[: words.index(">")]
    assert run(words[1:]) == STATUS.get(line, 0)
    if "--out" in words:
        assert Path(words[words.index("--out") + 1]).exists()
