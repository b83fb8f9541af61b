"""``asced record`` as it is used: alone, under torchrun and SLURM, interrupted, and wrongly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_cli.main import run
from asced_stores import TrajectoryStore, open_runs

REPOSITORY = Path(__file__).parents[2]


def arguments(folder: Path, out: Path, *more: str) -> list[str]:
    settings = ("--runs", "20", "--steps", "6", "--batch-size", "4", "--device", "cpu")
    return ["record", "--pipeline", str(folder), "--out", str(out), *settings, *more]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def test_it_records_and_says_what_it_did(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs.zarr"
    assert run(arguments(tiny_folder, out, "--json", "--checkpoints", "2,4")) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert result["runs"] == 20
    assert result["batches"] == 5
    assert result["failed"] == 0
    events = [json.loads(line) for line in captured.err.splitlines()]
    assert [event["event"] for event in events] == ["start", *["batch"] * 5, "done"]
    assert events[0]["bytes"] > 20 * events[0]["bytes_per_run"]
    assert events[0]["disk_free"] > 0
    assert events[-2]["seconds_left"] == 0
    assert open_runs(out)["checkpoint"].values.tolist() == [2, 4]

    assert run(arguments(tiny_folder, out, "--checkpoints", "2,4")) == 2
    assert "exists already" in capsys.readouterr().err
    assert run(arguments(tiny_folder, out, "--checkpoints", "2,4", "--resume")) == 0
    assert "0 runs" in capsys.readouterr().out
    assert run(arguments(tiny_folder, out, "--overwrite")) == 0
    captured = capsys.readouterr()
    assert "20 runs of 6 steps" in captured.out
    assert "failed" not in captured.out
    assert "a run" in captured.err
    assert "free" in captured.err


def test_it_says_how_many_runs_failed(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "turns_nan.py").write_text(f"""
from asced_recorders import load_pipeline

def spoil(module, given, output):
    output[0][1] = float("nan")

def make():
    pipe = load_pipeline({str(tiny_folder)!r}, device="cpu")
    pipe.unet.register_forward_hook(spoil)
    return pipe
""")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    command = ["record", "--pipeline", "turns_nan:make", "--runs", "10", "--steps", "3"]
    command += ["--batch-size", "4"]
    assert run([*command, "--out", "runs.zarr"]) == 0
    (row,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("failed")]
    assert row.split(maxsplit=1)[1] == "3 of 10 runs ended in NaN or infinity"
    assert run([*command, "--out", "again.zarr", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["failed"] == 3
    events = [json.loads(line) for line in captured.err.splitlines()]
    assert [event["failed"] for event in events if event["event"] == "batch"] == [1, 2, 3]


@pytest.mark.parametrize(("more", "waits"), [((), True), (("--no-fsync",), False)])
def test_the_disk_is_waited_for_unless_told_otherwise(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    waits: bool,
) -> None:
    fsync, calls = os.fsync, []

    def counted(descriptor: int) -> None:
        calls.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    assert run(arguments(tiny_folder, tmp_path / "runs.zarr", *more)) == 0
    assert (len(calls) > 5) is waits
    assert TrajectoryStore.open(tmp_path / "runs.zarr").verify().ok


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pipeline", "nope"], "unknown pipeline 'nope': give"),
        (["--pipeline", "fashionn"], "unknown pipeline 'fashionn' (did you mean fashion?): give"),
        (["--runs", "0"], "runs is 0"),
        (["--checkpoints", "0,1,2,3,4,5,6"], "7 checkpoints are more than 6 steps"),
        (["--checkpoints", "a"], "give whole numbers"),
        (["--scheduler-option", "eta"], "is no NAME=VALUE"),
        (["--scheduler", "heun", "--scheduler-option", "order=3"], "has no option order"),
        (["--fields", "eps,score"], "unknown fields"),
        (["--prompts", "none.txt"], "no file of prompts"),
        (["--precision", "int8"], "is not one of"),
        (["--rank", "3", "--world-size", "2"], "rank"),
    ],
)
def test_wrong_input_ends_with_status_2_and_one_line(
    more: list[str],
    message: str,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "runs.zarr"
    assert run(arguments(tiny_folder, out, *more)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not out.exists()


def assert_whole(out: Path, reference: Path) -> None:
    one, two = open_runs(out), open_runs(reference)
    assert one["run"].values.tolist() == list(range(20))
    np.testing.assert_array_equal(one["sample"].values, two["sample"].values)
    np.testing.assert_array_equal(one["eps"].values, two["eps"].values)


@pytest.fixture(scope="module")
def reference(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same recording, made by one process."""
    out = tmp_path_factory.mktemp("reference") / "runs.zarr"
    command = [sys.executable, "-m", "asced_cli", *arguments(tiny_folder, out)]
    subprocess.run(command, check=True, env=environment(), capture_output=True, timeout=250)
    return out


@pytest.mark.slow
def test_torchrun_shares_the_batches_between_two_processes(
    tiny_folder: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs.zarr"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node", "2", "-m", "asced_cli", *arguments(tiny_folder, out)]
    subprocess.run(command, check=True, env=environment(), capture_output=True, timeout=280)
    assert_whole(out, reference)
    assert set(open_runs(out)["rank"].values.tolist()) == {0, 1}
    again = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=280)
    assert again.returncode != 0
    assert "exists already" in again.stderr


@pytest.mark.slow
def test_a_process_without_a_batch_ends_well(tiny_folder: Path, tmp_path: Path) -> None:
    """One batch for two processes: both end with status 0, and the second says 0 runs."""
    out = tmp_path / "runs.zarr"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    line = arguments(tiny_folder, out, "--batch-size", "64", "--json")
    command = [*launcher, "--nproc-per-node", "2", "-m", "asced_cli", *line]
    done = subprocess.run(
        command, check=True, env=environment(), capture_output=True, text=True, timeout=280
    )
    said, end = [], 0
    while (at := done.stdout.find("{", end)) >= 0:
        found, end = json.JSONDecoder().raw_decode(done.stdout, at)
        said.append(found)
    assert sorted(one["runs"] for one in said) == [0, 20]
    assert "Traceback" not in done.stderr
    assert open_runs(out).sizes["run"] == 20


@pytest.mark.slow
def test_slurm_restarts_with_another_number_of_processes(
    tiny_folder: Path, reference: Path, tmp_path: Path
) -> None:
    """docs/slurm.sbatch is run as it stands, with an srun that sets SLURM's variables."""
    out = tmp_path / "runs.zarr"
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "asced").write_text(f'#!/bin/sh\nexec {sys.executable} -m asced_cli "$@"\n')
    (binaries / "srun").write_text(
        "#!/bin/bash\n"
        'while [[ "$1" == --* ]]; do shift; done\n'
        "status=0; pids=()\n"
        "for ((i = 0; i < SLURM_NTASKS; i++)); do\n"
        '  SLURM_PROCID=$i "$@" & pids+=($!)\n'
        "done\n"
        'for pid in "${pids[@]}"; do wait "$pid" || status=$?; done\n'
        "exit $status\n"
    )
    for path in binaries.iterdir():
        path.chmod(0o755)
    settings = {
        "PIPELINE": str(tiny_folder),
        "OUT": str(out),
        "RUNS": "20",
        "STEPS": "6",
        "BATCH_SIZE": "4",
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "SLURM_STEP_ID": "0",
    }
    script = ["bash", str(REPOSITORY / "docs" / "slurm.sbatch")]
    job = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2"}
    subprocess.run(script, check=True, env=environment(**settings, **job), timeout=280)
    assert_whole(out, reference)
    for batch in (0, 1, 3):
        (out / "commits" / f"{batch}.json").unlink()
    job = {"SLURM_JOB_ID": "2", "SLURM_NTASKS": "1"}
    subprocess.run(script, check=True, env=environment(**settings, **job), timeout=280)
    assert_whole(out, reference)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_at_a_batch_and_can_be_resumed(
    number: signal.Signals, tiny_folder: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs.zarr"
    command = [sys.executable, "-m", "asced_cli", *arguments(tiny_folder, out)]
    slow = [*command, "--ignore-disk", "--json"]
    pipes: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(slow, env=environment(), **pipes) as process:
        assert process.stderr is not None
        deadline = time.monotonic() + 200
        for line in process.stderr:
            assert time.monotonic() < deadline
            if '"batch"' in line:
                process.send_signal(number)
                break
        rest = process.stderr.read()
        assert process.wait(timeout=100) == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    done = TrajectoryStore.open(out).committed_batches()
    assert 1 <= len(done) < 5
    subprocess.run([*command, "--resume"], check=True, env=environment(), timeout=250)
    assert_whole(out, reference)


def test_help_is_quick_and_has_an_example() -> None:
    began = time.process_time()
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "asced_cli", "record", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Examples:" in result.stdout
    assert time.process_time() - began < 1
    for heavy in ("torch", "diffusers", "numpy", "zarr"):
        assert f" {heavy}\n" not in result.stderr
