"""Options of a call: one class says them, to callers, help and the command line alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import click
import pytest

from asced_analysis.evaluation import evaluate, tune
from asced_analysis.evaluation.options import EvaluateOptions, TuneOptions
from asced_analysis.replay import branch, replay
from asced_analysis.replay.branching import BranchOptions
from asced_analysis.replay.options import ReplayOptions
from asced_cli.commands import evaluate as evaluate_command
from asced_cli.commands import record as record_command
from asced_cli.commands import replay as replay_command
from asced_cli.commands import tune as tune_command
from asced_cli.option_classes import all_options
from asced_recorders import Recorder, record
from asced_recorders.custom.loop import CustomRecorder
from asced_recorders.custom.options import CustomOptions
from asced_recorders.pipelines.options import RecordOptions
from asced_recorders.recording.recorder import RecorderOptions
from asced_stores.errors import InputError
from asced_stores.options import option, options

JSON = click.Option(["--json", "as_json"], is_flag=True)
CALLS = {
    "evaluate": (evaluate, EvaluateOptions, ("call", "progress")),
    "tune": (tune, TuneOptions, ("call", "progress")),
    "branch": (branch, BranchOptions, ()),
    "record": (record, RecordOptions, ("observers", "progress", "pruning", "storage_options")),
    "replay": (replay, ReplayOptions, ("call", "progress", "parameters")),
    "Recorder": (Recorder, RecorderOptions, ()),
    "CustomRecorder": (CustomRecorder, CustomOptions, ()),
}


@pytest.mark.parametrize("name", CALLS)
def test_signature_and_help_show_every_option(name: str) -> None:
    function, kind, _ = CALLS[name]
    shown = inspect.signature(function).parameters
    text = inspect.getdoc(function) or ""
    assert "options" not in shown
    for one in fields(kind):
        assert one.name in shown
        assert f"{one.name} : " in text or f"**{one.name}" in text
        assert one.metadata["meaning"].split()[0] in text


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: record("fashion", "x.zarr", run=3), "runs"),
        (lambda: Recorder(None, "x.zarr", checkpoint=[3]), "checkpoints"),
        (lambda: Recorder.custom("x.zarr", (1, 8, 8), 3, field=["eps"]), "fields"),
    ],
)
def test_a_name_that_is_no_option_says_which_was_meant(call: Callable[[], Any], meant: str) -> None:
    with pytest.raises(TypeError, match=f"did you mean '{meant}'"):
        call()


def test_parameters_of_strategies_and_options_are_told_apart(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    given = {"masks": {3: [[True] * 16] * 16}, "pipeline": tiny_pipeline}
    with pytest.raises(TypeError, match="did you mean 'threads'"):
        replay(tiny_runs, tmp_path / "a.zarr", thread=1, **given)
    with pytest.raises(TypeError, match="ttc has no parameter 'draws'"):
        replay(tiny_runs, tmp_path / "a.zarr", strategy="ttc", draws=1, **given)


def test_options_are_checked_and_never_change() -> None:
    options = RecordOptions(runs=8)
    with pytest.raises(FrozenInstanceError):
        options.runs = 9  # type: ignore[misc]
    with pytest.raises(InputError, match="steps is 0"):
        RecordOptions(runs=8, steps=0)
    with pytest.raises(TypeError, match="out"):
        record("fashion")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (record_command, "record"),
        (replay_command, "replay"),
        (evaluate_command, "evaluate"),
        (tune_command, "tune"),
    ],
)
def test_the_command_line_has_every_option(command: Any, name: str) -> None:
    _, kind, in_code_alone = CALLS[name]
    flags = {one.name for one in command.command.params if isinstance(one, click.Option)}
    assert {one.name for one in fields(kind)} - flags == set(in_code_alone)


def test_a_new_option_is_a_flag_of_its_command_at_once() -> None:
    @options
    class Patient:
        share: float = option(0.25, "Has a line in the command.")
        patience: int | None = option(None, "Candidates that may be no better. Then it ends.")
        told: Callable[[], None] | None = option(None, "Has no form on the command line.")

    plain = click.Command("tune", params=[click.Option(["--share", "share"]), JSON])
    command = all_options(Patient)(plain)
    assert [one.name for one in command.params] == ["share", "patience", "as_json"]
    assert command.params[1].opts == ["--patience"]
    assert command.params[1].type is click.INT
    assert isinstance(command.params[1], click.Option)
    assert command.params[1].help == "Candidates that may be no better."
