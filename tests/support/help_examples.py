"""The examples that stand in ``--help``, line by line."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Iterator
from typing import Any

import click
import pytest

from asced_cli.main import COMMANDS

SAMPLES = ("record", "replay", "tune", "demo", "view", "push", "pull")
"""Commands that sample, serve until stopped, or ask a server: test_cli_sampled_examples."""
NEEDS_MODEL = (
    "lookahead.json",
    "--lookahead",
    "corrected.zarr",
    "--format torch",
    "--method outcome",
)
"""What these examples speak of comes from a model."""

SHELL = ("asced completion", 'eval "$(asced completion')
"""What a shell takes at its start; test_examples_parse parses it."""


def printed() -> list[str]:
    """Every line of every command's help that is no comment, whole."""
    lines = [
        line.strip()
        for name in COMMANDS
        for line in (command_of(name).epilog or "").replace("\b", "").splitlines()
    ]
    return [line for line in lines if line and line != "Examples:" and line[0] != "#"]


def words_of(line: str) -> list[str]:
    """Words after the program's name, of a line that a launcher may begin."""
    words = shlex.split(line)
    return words[words.index("asced_cli") + 1 if "asced_cli" in words else 1 :]


def command_of(name: str) -> click.Command:
    command = importlib.import_module(f"asced_cli.commands.{name}").command
    assert isinstance(command, click.Command)
    return command


def examples(*, sampled: bool = False) -> Iterator[Any]:
    """Each line, as it is printed; those that sample, or those that do not."""
    for name in COMMANDS:
        for line in map(str.strip, (command_of(name).epilog or "").splitlines()):
            samples = name in SAMPLES or any(word in line for word in NEEDS_MODEL)
            if line.startswith("asced ") and samples == sampled:
                yield pytest.param(line, id=line)
