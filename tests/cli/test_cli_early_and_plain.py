"""Commands fail early and plainly: outputs, suggestions, pipes, orders of arguments."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import click
import pytest

from asced_analysis.calibration.choose_level import METHODS
from asced_analysis.compute import stepped
from asced_analysis.thresholds.fingerprints import PortabilityWarning
from asced_cli.command import OutFile, OutStore
from asced_cli.commands.calibrate import _file_first
from asced_cli.main import COMMANDS, main, run
from asced_stores.testing import synthetic_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and thresholds of it."""
    folder = tmp_path_factory.mktemp("plain")
    synthetic_store(folder / "runs.zarr", runs=96)
    command = ["calibrate", str(folder / "runs.zarr"), "--false-alarm-rate", "0.2"]
    assert run([*command, "--out", str(folder / "thresholds.json")]) == 0
    return folder


def options(name: str) -> dict[str, click.Parameter]:
    command = importlib.import_module(f"asced_cli.commands.{name}").command
    return {parameter.name: parameter for parameter in command.params}


WRITERS = [
    ("stats", "s.zarr"),
    ("phases", "p.json"),
    ("calibrate", "t.json"),
    ("detect", "f.csv"),
    ("tune", "u.json"),
    ("evaluate", "e.json"),
    ("report", "r.html"),
    ("export", "bundle"),
    ("merge", "m.zarr"),
    ("select", "x.zarr"),
    ("repack", "y.zarr"),
    ("replay", "z.zarr"),
    ("record", "w.zarr"),
    ("demo", "demo"),
]


def line(name: str, folder: Path, out: object) -> list[str]:
    """A command that would work for long, if its output could be written."""
    thresholds, store = ["--thresholds", f"{folder}/thresholds.json"], f"{folder}/runs.zarr"
    more: dict[str, list[str]] = {
        "detect": [store, *thresholds],
        "tune": [store, *thresholds],
        "replay": [store, *thresholds],
        "export": [f"{folder}/thresholds.json", "--format", "bundle"],
        "record": ["--pipeline", "fashion", "--runs", "2", "--steps", "2"],
        "demo": ["--runs", "2"],
    }
    return [name, *more.get(name, [store]), "--out", str(out)]


@pytest.mark.parametrize(
    "command",
    [
        "export {0}/no.json --format bundle --out",
        "export {0}/no.zarr --format coco --out",
        "export {0}/no.zarr --format png --out",
        "stats {0}/runs.zarr --out",
        "pull owner/name",
    ],
)
def test_no_folder_of_something_else_is_replaced(
    command: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is anything read or asked for before that is said."""
    mine = tmp_path / "mine.zarr"
    mine.mkdir()
    (mine / "photo.jpg").write_text("mine")
    assert run([*command.format(folder).split(), str(mine), "--overwrite"]) == 2
    assert "expected an earlier output of the same kind" in capsys.readouterr().err
    assert [path.name for path in mine.iterdir()] == ["photo.jpg"]


def test_every_command_that_writes_is_here() -> None:
    writers = {name for name in COMMANDS if "out" in options(name)}
    assert writers <= {name for name, _ in WRITERS}


@pytest.mark.parametrize(("name", "file"), WRITERS)
def test_what_cannot_be_written_is_refused_before_any_work(
    name: str,
    file: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import asced_stores.store

    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(asced_stores.store.TrajectoryStore, "open", opened)
    (tmp_path / "file").write_text("mine")
    exists = tmp_path / file
    exists.mkdir()
    (exists / "thesis.txt").write_text("mine")
    for out, said in (
        (f"/proc/nowhere/{file}", "cannot be written to"),
        (tmp_path / "file" / file, "file"),
        (exists, "exists"),
    ):
        if name == "record" and out == exists:
            continue  # several processes share it: recording itself looks
        if isinstance(options(name)["out"].type, OutStore) and out == exists:
            continue  # no store lies there; making one looks for strangers, and leaves them
        assert run(line(name, folder, out)) == 2, out
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
    assert (exists / "thesis.txt").read_text() == "mine"
    if isinstance(options(name)["out"].type, OutFile):
        assert run(line(name, folder, f"s3://bucket/{file}")) == 2
        assert "is remote" in capsys.readouterr().err


def test_a_missing_folder_is_made(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "no" / "such" / "flags.csv"
    assert run(line("detect", folder, out)) == 0
    assert out.read_text().startswith("run,score,flagged")


def test_calibrate_says_at_once_that_nothing_is_kept(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["calibrate", f"{folder}/runs.zarr", "--false-alarm-rate", "0.2"]
    assert run(arguments) == 0
    assert capsys.readouterr().err.startswith("note: without --out")


@pytest.mark.parametrize("swapped", [False, True])
def test_a_drift_check_takes_either_order(
    swapped: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [f"{folder}/thresholds.json", f"{folder}/runs.zarr"][:: -1 if swapped else 1]
    assert run(["calibrate", pair[0], "--check", pair[1]]) == 0
    assert "none found" in capsys.readouterr().out
    assert run(["calibrate", pair[0], "--check", pair[1], "--out", "t.json"]) == 2


@pytest.mark.parametrize("thresholds", ["hf://some/where", "s3://b/t.json", "mistyped.json"])
def test_thresholds_elsewhere_are_told_from_a_store(thresholds: str, folder: Path) -> None:
    pair = (thresholds, f"{folder}/runs.zarr")
    assert _file_first(*pair) == _file_first(*pair[::-1]) == pair


def test_what_large_runs_take_is_said_beforehand(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where nobody watches a bar; runs that are small are not worth a word."""
    store, thresholds = str(tmp_path / "few.zarr"), f"{folder}/thresholds.json"
    synthetic_store(store, runs=20)
    lines = (
        ["detect", store, "--thresholds", thresholds],
        ["calibrate", store, "--false-alarm-rate", "0.2"],
        ["calibrate", store, "--check", thresholds],
        ["calibrate", store, "--transfer", thresholds],
        ["stats", store],
        ["phases", store],
        ["audit", store],
    )
    run(lines[0])
    assert "of memory" not in capsys.readouterr().err
    monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
    for words in lines:
        run(words)
        assert "note: 20 runs of 0 MB each, step by step in about" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "meant"), [("calibarte", "calibrate"), ("records", "record"), ("stat", "stats")]
)
def test_a_mistyped_command_is_told_which_was_meant(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([typed, "runs.zarr"]) == 2
    assert f"Did you mean {meant!r}?" in capsys.readouterr().err


def test_a_mistyped_scheduler_variant_and_setting(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"{folder}/runs.zarr"
    for arguments, said in (
        (["calibrate", store, "--variant", "outcom"], "outcome"),
        (["calibrate", store, "--strategy", "nope"], "nope"),
        (["calibrate", store, "--confidence", "2"], "0<x<1"),
        (["calibrate", store, "--set", "floor=nan"], "floor is 'nan'"),
        (["calibrate", store, "--set", "combine=most"], "expected one of peak, persistent, mean"),
        (["calibrate", store, "--set", "min_area=nan"], "expected a share"),
        (["calibrate", store, "--false-alarm-rate", "0"], "0<x<1"),
        (["calibrate", store, "--set", "combine"], "NAME=VALUE"),
        (["calibrate", store, "--set", "combine=peak", "--set", "combine=mean"], "twice"),
        (["record", "--pipeline", "fashion", "--out", "x.zarr", "--call-option", "=3"], "="),
    ):
        assert run(arguments) == 2, arguments
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify {store}", "info {store}", "--help", "stats --help"])
def test_a_closed_pipe_is_no_damage(command: str, folder: Path) -> None:
    """The reader has gone: neither 1 ("damage") nor any other status of ours."""
    asced = f"{sys.executable} -m asced_cli {command.format(store=folder / 'runs.zarr')}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {asced} | (exec 0<&-; sleep 0.1)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 141), done.stderr
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_labels_from_excel(folder: Path, tmp_path: Path) -> None:
    """A byte order mark before the header is no part of the first column's name."""
    labels = tmp_path / "labels.csv"
    rows = [f"{run},{'broken' if run % 2 else 'normal'}" for run in range(96)]
    labels.write_text("\ufeff" + "\n".join(["run,label", *rows]), encoding="utf-8")
    arguments = ["calibrate", f"{folder}/runs.zarr", "--method", "labels", "--labels", str(labels)]
    assert run([*arguments, "--false-alarm-rate", "0.2", "--out", str(tmp_path / "t.json")]) == 0


def test_the_same_flag_means_the_same_everywhere() -> None:
    """Of options with one name, all commands say the same, or speak of the same thing."""
    kinds: dict[str, set[str]] = {}
    for name in COMMANDS:
        for parameter in options(name).values():
            if isinstance(parameter, click.Option) and parameter.opts[0] in (
                *("--variant", "--labels", "--set", "--thresholds", "--strategy", "--overwrite"),
            ):
                kinds.setdefault(parameter.opts[0], set()).add(parameter.type.name)
    assert all(len(found) == 1 for found in kinds.values()), kinds
    flags = {flag for one in options("record").values() for flag in one.opts}
    assert not flags & {"--variant", "--labels"}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_has_one_name(name: str) -> None:
    assert [one.opts for one in options(name).values() if len(one.opts) > 1] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_stands_in_sections_and_lists_every_choice(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    command = importlib.import_module(f"asced_cli.commands.{name}").command
    first = text.partition("\nOptions:\n")[2].partition("\n\n")[0]
    shown = [row for row in first.splitlines() if row.startswith("  -") and "--help" not in row]
    assert len(shown) <= 12, "people need eight first; the others belong in sections"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in text
    words = " ".join(text.split())
    for parameter in options(name).values():
        known = getattr(parameter.type, "choices", None) or ()
        assert all(str(choice) in words for choice in known)


def test_methods_are_those_of_the_library() -> None:
    kind = options("calibrate")["method"].type
    assert isinstance(kind, click.Choice)
    assert set(kind.choices) == set(METHODS)


def test_an_endpoint_without_a_scheme_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", "s3://b/r.zarr", "--endpoint", "localhost:9000"]) == 2
    error = capsys.readouterr().err
    assert "http://localhost:9000" in error
    assert len(error.strip().splitlines()) == 1


def test_a_bucket_that_does_not_exist_is_said(
    s3_endpoint: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = "s3://no-such-bucket/m.zarr"
    assert run([*line("merge", folder, out), "--endpoint", s3_endpoint]) == 2
    assert "no-such-bucket" in capsys.readouterr().err
    assert run(["info", "s3://no-such-bucket/r.zarr", "--endpoint", s3_endpoint]) == 2


def test_no_other_library_draws_bars_into_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "")  # so that it is as before afterwards
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS")
    monkeypatch.setattr("sys.argv", ["asced", "--version"])
    for terminal, expected in ((True, None), (False, "1")):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        with pytest.raises(SystemExit):
            main()
        assert os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS") == expected


def test_a_warning_is_one_line_and_said_once(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, thresholds = str(tmp_path / "other.zarr"), str(folder / "thresholds.json")
    synthetic_store(store, runs=4, steps=20)
    monkeypatch.setattr("sys.argv", ["asced", "detect", store, "--thresholds", thresholds])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit) as ended:
            main()
        warnings.warn("a name\n  of two\nlines", PortabilityWarning, stacklevel=1)
    assert ended.value.code == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("asced: warning: these thresholds were calibrated with")
    assert lines[1] == "asced: warning: a name of two lines"
