"""Errors that say what was found, what was expected and what to do.

Every error of the toolkit derives from `AscedError`; its ``exit_status`` is what the command line
ends with (1 found something, 2 wrong usage or input, 3 failed while running).
"""

from __future__ import annotations

from collections.abc import Iterable


def install_hint(extra: str) -> str:
    """How to get what an extra of this distribution brings, for messages."""
    return f"pip install 'asced-analysis[{extra}]'"


class AscedError(Exception):
    """Base of every error of the toolkit."""

    exit_status = 3


class InputError(AscedError, ValueError):
    """What the user gave cannot be used; the message names the remedy."""

    exit_status = 2


class UnknownOptionError(InputError, TypeError):
    """A keyword argument that a function does not take; the message says which was meant."""


class TooFewStepsError(InputError):
    """Runs have too few steps for what was asked; the message says how many it needs."""


class StoreError(AscedError):
    """Something is wrong with a trajectory store."""


class StoreExistsError(StoreError, InputError, FileExistsError):
    """A store, or something else, already lies where a new one was to be made."""

    exit_status = 2


class StoreNotFoundError(StoreError, InputError, FileNotFoundError):
    """There is no store at the path."""

    exit_status = 2


class NotATrajectoryStoreError(StoreError, InputError):
    """What lies there is something else: another Zarr, another kind of folder."""

    exit_status = 2


class NewerFormatError(StoreError, InputError):
    """The store was written by a newer version of the toolkit."""

    exit_status = 2


class DamagedStoreError(StoreError, OSError):
    """Metadata of a store cannot be trusted: truncated, altered, absurd."""

    exit_status = 1


class DamagedBatchError(DamagedStoreError):
    """A committed batch does not match its checksum, or is not all there."""


class BatchTakenError(StoreError):
    """Another writer committed the batch, or took it over; nothing of theirs was touched."""


class IncompleteStoreError(StoreError, InputError):
    """The store has gaps where the operation needs it to be whole."""

    exit_status = 2


class SealedStoreError(StoreError):
    """The store is sealed; a writer came after the seal."""


class DiskFullError(StoreError, OSError):
    """No space is left; earlier batches are intact, and the batch can be written again."""


class BackendError(StoreError, OSError):
    """Object storage refused or did not answer, after all attempts."""


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most like one that was given; None where none is.

    Examples
    --------
    >>> from asced_stores.errors import nearest
    >>> nearest("calibrate", ["calibrated", "outcome"])
    'calibrated'
    """
    import difflib

    return next(iter(difflib.get_close_matches(str(name), list(known), n=1)), None)
