"""What nobody foresaw still ends in one line and the promised status."""

from __future__ import annotations

import click
import pytest

from asced_cli import main
from asced_cli.main import cli, run


def _raises(error: Exception) -> click.Command:
    @click.command("break")
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (RuntimeError("out of memory"), 3, "out of memory"),
        (OSError("disk full"), 3, "disk full"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "asced-analysis[record]"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_end_in_one_line(
    error: Exception,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "get_command", lambda _context, _name: _raises(error))
    assert run(["break"]) == status
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def test_the_traceback_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "get_command", lambda _context, _name: _raises(RuntimeError("why")))
    monkeypatch.setenv("ASCED_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="why"):
        main.run(["break"])
