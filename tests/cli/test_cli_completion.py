"""Completion: the script of each shell, and what a real bash is offered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from asced_cli.main import cli, run


def offered(*words: str) -> list[tuple[str, str]]:
    """Kind and value of what completes the last word."""
    *before, incomplete = words
    engine = ShellComplete(cli, {}, "asced", "_ASCED_COMPLETE")
    return [(item.type, item.value) for item in engine.get_completions(before, incomplete)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, mark in (("runs.zarr", "zarr.json"), ("model", "model_index.json"), ("notes", "x")):
        (tmp_path / name).mkdir()
        (tmp_path / name / mark).touch()
    (tmp_path / "thresholds.json").touch()
    (tmp_path / "report.html").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_of_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_ASCED_COMPLETE={shell}_complete" in script
    assert run(["completion", shell, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"].strip() == script.strip()


def test_commands_and_options() -> None:
    assert ("plain", "record") in offered("rec")
    assert ("plain", "--false-alarm-rate") in offered("calibrate", "--false")


@pytest.mark.usefixtures("folder")
def test_stores_pipelines_and_files() -> None:
    assert offered("info", "") == [("plain", "runs.zarr")]
    assert offered("report", "runs.zarr", "--replay", "./r") == [("plain", "./runs.zarr")]
    assert offered("merge", "runs.zarr", "ru") == [("plain", "runs.zarr")]
    assert offered("record", "--pipeline", "") == [("plain", "fashion"), ("plain", "model")]
    assert offered("detect", "runs.zarr", "--thresholds", "") == [("plain", "thresholds.json")]
    assert offered("info", "no") == [("dir", "no")], "the shell goes on with folders"
    assert offered("detect", "runs.zarr", "--thresholds", "n") == [("file", "n")]


def test_names() -> None:
    assert ("plain", "euler") in offered("record", "--scheduler", "eu")
    assert ("plain", "outcome") in offered("calibrate", "runs.zarr", "--variant", "o")
    assert ("plain", "score_clipping") in offered("replay", "runs.zarr", "--strategy", "sc")
    assert ("plain", "shuffled") in offered("replay", "runs.zarr", "--control", "s")


def test_strategies_are_those_there_are() -> None:
    from asced_analysis.correction import STRATEGIES

    names = [value for _, value in offered("replay", "runs.zarr", "--strategy", "")]
    assert names == list(STRATEGIES)


def test_in_a_real_bash(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The script is sourced by bash, which then asks the real command."""
    programs = tmp_path_factory.mktemp("bin")
    command = programs / "asced"
    command.write_text(
        f"#!{sys.executable}\nfrom asced_cli.main import main\nimport sys\n"
        "sys.argv[0] = 'asced'\nmain()\n"
    )
    command.chmod(0o755)
    script = (
        'eval "$(asced completion bash)"\n'
        "COMP_WORDS=(asced info r); COMP_CWORD=2; _asced_completion asced\n"
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["runs.zarr"], done.stderr


@pytest.mark.parametrize("words", ["asced record --scheduler eu", "asced calibrate r --variant o"])
def test_nothing_heavy_is_imported(words: str) -> None:
    code = (
        "import sys\nfrom asced_cli.main import run\nrun([])\n"
        "heavy = {'torch', 'diffusers', 'xarray', 'zarr', 'dask', 'sklearn', 'matplotlib'}\n"
        "print(*(heavy & set(sys.modules)), file=sys.stderr)"
    )
    environment = {
        **os.environ,
        "_ASCED_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()
    assert not done.stderr.strip()
