"""What ``asced doctor`` looks at: versions, device, disk, and whether a pipeline fits."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from asced_recorders.recording.cost import MARGIN, disk_free, human
from asced_recorders.recording.trial_runs import TrialRuns, try_runs
from asced_stores.errors import install_hint

if TYPE_CHECKING:
    from asced_recorders.pipelines.kinds import Kind

TESTED = {"torch": "2.13", "diffusers": "0.42", "transformers": "5.23", "zarr": "3.1"}
LEAST_FREE = 1 << 30
TRIAL_BYTES = 64 << 20
SLOW_DISK = 20e6  # bytes a second
PLANNED_RUNS = 500
BUSY = 0.7
"""Cores that a process on the CPU has at least, where nothing else runs."""


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


def examine(
    folder: str = ".",
    pipeline: str | None = None,
    *,
    steps: int | None = None,
    more: Callable[[Any, int], Iterator[Check]] | None = None,
    **loading: Any,
) -> Iterator[Check]:
    """Look at the installation, and at a pipeline if one is named.

    Parameters
    ----------
    folder : str
        Where stores will lie.
    pipeline : str, optional
        What `load_pipeline` takes.
    steps : int, optional
        Of a run; by default what the pipeline's call takes, at most 25.
    more : callable, optional
        ``more(pipe, steps)`` gives further findings about the loaded pipeline.
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
    if disk_free(folder) is not None and os.access(folder, os.W_OK):
        yield _disk_speed(folder)
    yield from _processes()
    if pipeline is not None:
        yield from _pipeline(pipeline, folder, steps, more, loading)


def _version(package: str, tested: str) -> Check:
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        return Check(package, "problem", f"not installed: {install_hint('record')}")
    if found.startswith(tested):
        return Check(package, "ok", found)
    return Check(package, "warning", f"{found}; tested with {tested}")


def _device() -> Check:
    import torch

    from asced_recorders.pipelines.devices import available_devices, device_memory, device_name

    _, *accelerators = available_devices()
    if not accelerators:
        return Check("device", "ok", f"CPU, {torch.get_num_threads()} threads; no accelerator")
    found = []
    for device in accelerators:
        memory = device_memory(device)
        free = "" if memory is None else f", {human(memory[0])} of {human(memory[1])} free"
        found.append(f"{device_name(device) or device}{free}")
    text = f"{'; '.join(found)}; copying from a device is untested so far"
    return Check("device", "warning", text)


def _disk(folder: str) -> Check:
    free = disk_free(folder)
    if free is None:
        return Check("disk", "ok", "object storage")
    if not os.access(folder, os.W_OK):
        return Check("disk", "problem", f"{folder} cannot be written to")
    state: Literal["ok", "warning"] = "ok" if free > LEAST_FREE else "warning"
    return Check("disk", state, f"{human(free)} free")


def _disk_speed(folder: str) -> Check:
    """Write and read a file of TRIAL_BYTES where stores will lie; it is gone afterwards."""
    block = os.urandom(1 << 20)
    pieces = TRIAL_BYTES // len(block)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".asced-doctor-") as file:
            begun = time.perf_counter()
            for _ in range(pieces):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            written = time.perf_counter()
            # Ask for the disk's own speed, not that of the system's cache, where that can be asked.
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            started = time.perf_counter()
            while file.read(len(block)):
                pass
            read = time.perf_counter()
    except OSError as error:
        return Check("disk speed", "problem", f"{folder} cannot be written to: {error}")
    speeds = TRIAL_BYTES / (written - begun), TRIAL_BYTES / (read - started)
    state: Literal["ok", "warning"] = "ok" if speeds[0] > SLOW_DISK else "warning"
    advice = "" if state == "ok" else "; sampling may have to wait for it"
    return Check(
        "disk speed",
        state,
        f"writes {human(int(speeds[0]))}/s (fsync included), "
        f"reads {human(int(speeds[1]))}/s{advice}",
    )


def _processes() -> Iterator[Check]:
    """Variables of a launcher that contradict each other would give batches to nobody."""
    from asced_stores.errors import InputError
    from asced_stores.writing.placement import placement

    try:
        rank, world_size = placement(None, None)
    except InputError as error:
        yield Check("processes", "problem", str(error))
        return
    yield Check("processes", "ok", f"rank {rank} of {world_size}")


def _pipeline(
    name: str,
    folder: str,
    steps: int | None,
    more: Callable[[Any, int], Iterator[Check]] | None,
    loading: dict[str, Any],
) -> Iterator[Check]:
    from asced_recorders.pipelines.kinds import kind_of
    from asced_recorders.pipelines.loading import load_pipeline
    from asced_recorders.pipelines.sampling import is_unconditional
    from asced_recorders.tap.schedulers import prediction_type_of, scheduler_class
    from asced_stores.errors import InputError

    try:
        pipe = load_pipeline(name, **loading)
    except InputError as error:
        yield Check("pipeline", "problem", str(error))
        return
    kind = kind_of(pipe)
    steps = steps or kind.steps
    yield Check("pipeline", "ok", f"{type(pipe).__name__}, {kind.sentence}")
    try:
        scheduler = scheduler_class(pipe.scheduler)
        yield Check("scheduler", "ok", f"{scheduler}, {prediction_type_of(pipe.scheduler)}")
    except InputError as error:
        yield Check("scheduler", "problem", str(error))
        return
    yield _computing(pipe)
    if is_unconditional(pipe):
        yield _trial(pipe)
    yield from _recorded(pipe, kind, folder, steps)
    if more is not None:
        yield from more(pipe, steps)


def _computing(pipe: Any) -> Check:
    """Caches, compilation and the like, which change speed, rounding or what is evaluated."""
    from asced_recorders.pipelines.model_facts import compute_facts, skips_work

    facts = compute_facts(pipe)
    precision = sorted({str(of) for of in facts.get("precision", {}).values()})
    said = [f"weights in {', '.join(precision)}"] if precision else []
    for what in ("caches", "compiled", "quantisation", "torch_hooks"):
        found = facts.get(what)
        said.append(f"{what.replace('_', ' ')}: {', '.join(found) if found else 'none'}")
    if not skips_work(pipe):
        return Check("computing", "ok", "; ".join(said))
    said.append(
        "a cache may answer in place of the network: `evaluated` then says at which steps it ran"
    )
    return Check("computing", "warning", "; ".join(said))


def _recorded(pipe: Any, kind: Kind, folder: str, steps: int) -> Iterator[Check]:
    """Record a few short runs in memory; from them, what many whole runs take."""
    from asced_recorders.pipelines.kinds import trial_arguments

    arguments = trial_arguments(kind)
    if arguments is None:
        yield Check(
            "recording",
            "ok",
            f"not tried, since it takes {kind.takes}: record your own calls, `with "
            "Recorder(pipe, store): pipe(...)`",
        )
        return
    try:
        tried = try_runs(pipe, kind, arguments)
    except Exception as error:  # whatever a pipeline of somebody else's raises
        yield Check("recording", "problem", f"{type(error).__name__}: {error}")
        return
    yield Check("recording", "ok", f"runs of {tried.steps} steps: {', '.join(tried.variables)}")
    if tried.refused:
        yield Check(
            "batches",
            "warning",
            f"{kind.batch_size} runs at once failed ({tried.refused}): record with --batch-size 1",
        )
    run, free = tried.bytes(steps), disk_free(folder)
    fits = free is None or run * PLANNED_RUNS + MARGIN < free
    yield Check(
        f"{PLANNED_RUNS} runs",
        "ok" if fits else "warning",
        f"of {steps} steps: {human(run * PLANNED_RUNS)} of disk ({human(run)} a run)"
        + ("" if fits else f", and {human(free or 0)} are free")
        + f"; about {duration(tried.seconds(PLANNED_RUNS, steps))} of sampling "
        + _batches(tried, kind)
        + _busy(pipe, tried),
    )


def _batches(tried: TrialRuns, kind: Kind) -> str:
    """How many runs at once a time is for, and why not more."""
    step = f"{duration(tried.step_seconds)} a step"
    if tried.batch_size > 1:
        return f"with --batch-size {tried.batch_size} ({step})"
    slow = tried.batch_size < kind.batch_size and not tried.refused
    return f"one run at a time ({step})" + ("; batches would take long to try" if slow else "")


def _busy(pipe: Any, tried: TrialRuns) -> str:
    """Whether others used the processor meanwhile, which makes a time longer than it need be."""
    from asced_recorders.pipelines.provenance import execution_device

    if execution_device(pipe).type != "cpu" or tried.cores > BUSY:
        return ""
    return f"; less on an idle machine: others left {tried.cores:.0%} of a core"


def duration(seconds: float) -> str:
    """Seconds for people."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"


def _trial(pipe: Any) -> Check:
    """Sample one run for two steps with and without the tap: the same bits must come out."""
    import torch

    from asced_recorders.pipelines.sampling import initial_noise, sample_unconditional
    from asced_recorders.tap.tap import TapListener

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
