"""The command line as a whole: fast help, an example everywhere, errors without tracebacks."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from asced_cli.main import COMMANDS, run


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_and_json(name: str) -> None:
    command = importlib.import_module(f"asced_cli.commands.{name}").command
    assert f"asced {name}" in (command.epilog or ""), "no example in --help"
    assert any("--json" in option.opts for option in command.params), "no --json"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_nothing_heavy(name: str) -> None:
    code = (
        "import sys\nfrom asced_cli.main import run\n"
        f"assert run([{name!r}, '--help']) == 0\n"
        "heavy = {'torch', 'diffusers', 'xarray', 'zarr', 'dask', 'sklearn', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_missing_store_is_wrong_input_without_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for arguments in (
        ["info", str(tmp_path / "no.zarr")],
        ["verify", str(tmp_path / "no.zarr")],
        ["stats", str(tmp_path / "no.zarr"), "--out", str(tmp_path / "s.zarr")],
        ["phases", str(tmp_path / "no.zarr"), "--out", str(tmp_path / "p.json")],
        ["calibrate", str(tmp_path / "no.zarr"), "--out", str(tmp_path / "t.json")],
        ["report", str(tmp_path / "no.zarr"), "--out", str(tmp_path / "r.html")],
    ):
        assert run(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert "no.zarr" in error
        assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_parse(name: str) -> None:
    """Every line of the examples is a command with options that exist."""
    command = importlib.import_module(f"asced_cli.commands.{name}").command
    lines = [line.strip() for line in (command.epilog or "").splitlines()]
    examples = [line for line in lines if f"asced {name} " in f"{line} "]
    assert examples
    for line in examples:
        line = line.removeprefix("Example: ")
        words = shlex.split(line.removeprefix('eval "$(').removesuffix(')"').split(" > ")[0])
        if words[0] == "torchrun":
            words = ["asced", *words[words.index("asced_cli") + 1 :]]
        assert words[:2] == ["asced", name], line
        command.make_context(name, words[2:])


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_can_be_copied(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No example is broken over two lines, however narrow the terminal."""
    assert run([name, "--help"]) == 0
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    command = importlib.import_module(f"asced_cli.commands.{name}").command
    for line in (command.epilog or "").replace("\b", "").splitlines():
        assert line.strip() in shown
