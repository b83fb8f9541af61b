"""What a recording will take, before it is begun."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from asced_stores import TrajectorySpec
from asced_stores.errors import InputError

SPARE = 1.02  # markers, indices and checksums
MARGIN = 64 << 20  # bytes that are left on the disk


def recording_cost(spec: TrajectorySpec, runs: int, out: str) -> dict[str, Any]:
    """Bytes of a run and of all, and what the disk has.

    Parameters
    ----------
    spec : TrajectorySpec
        What a run consists of.
    runs : int
        That are still to be recorded.
    out : str
        Path of the store.

    Returns
    -------
    dict
        ``bytes_per_run``, ``bytes``, ``disk_free`` (None on object storage) and ``variables``.
    """
    total = int(spec.run_nbytes * runs * SPARE)
    return {
        "bytes_per_run": spec.run_nbytes,
        "bytes": total,
        "disk_free": disk_free(out),
        "variables": {variable.name: variable.nbytes for variable in spec.variables},
    }


def disk_free(out: str) -> int | None:
    """Free bytes where the store will lie; None where there is no disk to ask."""
    if "://" in str(out):
        return None
    path = Path(out).absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def check_disk(cost: dict[str, Any], out: str) -> None:
    """Raise an `InputError` if the disk is too small for a recording."""
    free = cost["disk_free"]
    if free is not None and cost["bytes"] + MARGIN > free:
        raise InputError(
            f"{out} would take {human(cost['bytes'])} (and {human(MARGIN)} are kept back), and "
            f"{human(free)} are free: record fewer runs or fields (--fields), or go on all the "
            "same with --ignore-disk"
        )


def human(count: float) -> str:
    """Bytes for people, in decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
