"""Errors that say what was found, what was expected and what to do.

Every error of the toolkit derives from `AscedError`; its ``exit_status`` is what the command line
ends with (1 found something, 2 wrong usage or input, 3 failed while running).
"""

from __future__ import annotations


class AscedError(Exception):
    """Base of every error of the toolkit."""

    exit_status = 3


class InputError(AscedError, ValueError):
    """What the user gave cannot be used; the message names the remedy."""

    exit_status = 2


class StoreError(AscedError):
    """Something is wrong with a trajectory store."""
