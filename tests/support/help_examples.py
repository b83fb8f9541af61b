"""The examples that stand in ``--help``, line by line."""

from __future__ import annotations

import importlib
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
