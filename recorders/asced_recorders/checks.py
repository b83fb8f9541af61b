"""What ``asced doctor`` looks at: versions, device, disk, and whether a pipeline fits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from asced_recorders.cost import disk_free, human

TESTED = {"torch": "2.13", "diffusers": "0.42", "transformers": "5.23", "zarr": "3.1"}
LEAST_FREE = 1 << 30


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes
    ----------
    name : str
        What was looked at.
    state : str
        ``ok``, ``warning`` or ``problem``.
    found : str
        What was found, and what to do about it.
    """

    name: str
    state: Literal["ok", "warning", "problem"]
    found: str


def examine(folder: str = ".", pipeline: str | None = None, **loading: Any) -> Iterator[Check]:
    """Look at the installation, and at a pipeline if one is named.

    Parameters
    ----------
    folder : str
        Where stores will lie.
    pipeline : str, optional
        What `load_pipeline` takes.
    **loading
        For `load_pipeline`.

    Yields
    ------
    Check
    """
    missing = False
    for package, tested in TESTED.items():
        check = _version(package, tested)
        missing |= check.state == "problem"
        yield check
    if missing:
        return
    yield _device()
    yield _disk(folder)
    yield from _processes()
    if pipeline is not None:
        yield from _pipeline(pipeline, loading)


def _version(package: str, tested: str) -> Check:
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        return Check(package, "problem", "not installed: pip install 'asced-analysis[record]'")
    if found.startswith(tested):
        return Check(package, "ok", found)
    return Check(package, "warning", f"{found}; tested with {tested}")


def _device() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("device", "ok", f"CPU, {torch.get_num_threads()} threads; no CUDA device")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Check("device", "warning", f"{', '.join(names)}; the CUDA copy path is untested so far")


def _disk(folder: str) -> Check:
    free = disk_free(folder)
    if free is None:
        return Check("disk", "ok", "object storage")
    if not os.access(folder, os.W_OK):
        return Check("disk", "problem", f"{folder} cannot be written to")
    state: Literal["ok", "warning"] = "ok" if free > LEAST_FREE else "warning"
    return Check("disk", state, f"{human(free)} free")


def _processes() -> Iterator[Check]:
    """Variables of a launcher that contradict each other would give batches to nobody."""
    from asced_stores.errors import InputError
    from asced_stores.writer import placement

    try:
        rank, world_size = placement(None, None)
    except InputError as error:
        yield Check("processes", "problem", str(error))
        return
    yield Check("processes", "ok", f"rank {rank} of {world_size}")


def _pipeline(name: str, loading: dict[str, Any]) -> Iterator[Check]:
    from asced_recorders.loading import load_pipeline
    from asced_recorders.sampling import is_unconditional
    from asced_recorders.schedulers import prediction_type_of, scheduler_class
    from asced_stores.errors import InputError

    try:
        pipe = load_pipeline(name, **loading)
    except InputError as error:
        yield Check("pipeline", "problem", str(error))
        return
    loop = "our own loop, any scheduler" if is_unconditional(pipe) else "its own loop"
    yield Check("pipeline", "ok", f"{type(pipe).__name__}, {loop}")
    try:
        kind = scheduler_class(pipe.scheduler)
        yield Check("scheduler", "ok", f"{kind}, {prediction_type_of(pipe.scheduler)}")
    except InputError as error:
        yield Check("scheduler", "problem", str(error))
        return
    if is_unconditional(pipe):
        yield _trial(pipe)


def _trial(pipe: Any) -> Check:
    """Sample one run for two steps with and without the tap: the same bits must come out."""
    import torch

    from asced_recorders.sampling import initial_noise, sample_unconditional
    from asced_recorders.tap import TapListener

    ends = []
    for listener in (None, TapListener()):
        pipe.scheduler.set_timesteps(2)
        x_init = initial_noise(pipe, [0])
        generators = [torch.Generator().manual_seed(1)]
        ends.append(
            sample_unconditional(
                pipe, x_init=x_init, steps=2, generators=generators, listener=listener
            )
        )
    if torch.equal(ends[0], ends[1]):
        return Check("trial", "ok", "two steps, bit-identical with and without the tap")
    return Check("trial", "problem", "two steps differ with the tap: please report this")
