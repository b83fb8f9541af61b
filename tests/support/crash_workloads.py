"""What is done to a store while `crash_states.Disk` watches, and what every crash must leave."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import random
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from crash_states import Disk, Tree, Turns

from asced_stores.backends import local as local_backend
from asced_stores.backends.backend import TEMPORARY, Backend
from asced_stores.copying.merging import merge
from asced_stores.copying.selecting import repack
from asced_stores.errors import BatchTakenError
from asced_stores.format import compaction
from asced_stores.format.markers import batch_of
from asced_stores.format.metadata import make_room, read_metadata
from asced_stores.format.observations import Observations, has_observations, put_observations
from asced_stores.format.spec import TrajectorySpec
from asced_stores.maintenance import verifying
from asced_stores.store import TrajectoryStore
from asced_stores.testing import synthetic_batch, synthetic_spec
from asced_stores.writing import writer

SPEC = synthetic_spec(steps=2, shape=(1, 2, 2), fields=("eps", "sample"))
OBSERVED = dataclasses.replace(SPEC, attributes={**SPEC.attributes, "keep": "sample:1"})
RUNS = 3
DATA = synthetic_batch(SPEC, range(RUNS))
NAME = "runs.zarr"
ARRAYS = {
    f"{name}/zarr.json"
    for name in (*DATA, "status", "step", "timestep", "alpha", "sigma", "log_snr")
}


class Inline(Executor):
    """Does at once what it is given, so that the order of calls is always the same."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, work: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        """Do it."""
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments, **options))
        except BaseException as error:
            future.set_exception(error)
        return future

    def map(self, work: Any, *items: Any, **_: Any) -> Any:
        """Do all."""
        return [work(*each) for each in zip(*items, strict=False)]


class _Clock(datetime):
    """Time stands still: states of two runs that differ in nothing else are one."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        """The beginning."""
        return datetime.fromtimestamp(0, tz)


@contextlib.contextmanager
def in_order() -> Iterator[None]:
    """One thread, and names of files in the same order in every test run."""
    count = itertools.count()

    def name() -> uuid.UUID:
        return uuid.UUID(int=next(count))

    with contextlib.ExitStack() as stack:
        for module in (compaction, local_backend, verifying, writer):
            stack.enter_context(mock.patch.object(module, "ThreadPoolExecutor", Inline))
        stack.enter_context(mock.patch.object(uuid, "uuid4", name))
        stack.enter_context(mock.patch.object(writer, "datetime", _Clock))
        yield


# --- what is done -------------------------------------------------------------------------------


def create(
    folder: Path, name: str = NAME, spec: TrajectorySpec = SPEC, **options: Any
) -> TrajectoryStore:
    """Lay out a store for three batches of one run."""
    return TrajectoryStore.create(folder / name, spec, runs=RUNS, batch_size=1, **options)


def write(
    store: TrajectoryStore, rank: int = 0, world_size: int = 1, *, disk: Disk | None = None
) -> None:
    """Write what is missing of this rank's batches."""
    with store.writer(rank, world_size) as one:
        for batch in one.pending_batches():
            arrays = {name: values[batch : batch + 1] for name, values in DATA.items()}
            with contextlib.suppress(BatchTakenError):
                if has_observations(store):
                    seen = Observations(np.array([batch]), {"mean": np.zeros(1)})
                    put_observations(store, batch, seen)
                one.write_batch(batch, arrays, [batch], {"seed": [batch]})
                if disk is not None:
                    disk.promise(batch)


def filled(folder: Path, name: str = NAME, **options: Any) -> TrajectoryStore:
    """Make a store of three committed batches."""
    store = create(folder, name, **options)
    write(store)
    return store


Workload = Callable[[Path, random.Random], Disk]


def _alone(before: Callable[[Path], Any], during: Callable[[Any, Disk], Any]) -> Workload:
    def work(folder: Path, _rng: random.Random) -> Disk:
        prepared = before(folder)
        disk = Disk(folder)
        with disk.watching():
            during(prepared, disk)
        return disk

    return work


def _together(*ranks: tuple[int, int]) -> Workload:
    def work(folder: Path, rng: random.Random) -> Disk:
        create(folder)
        disk, turns = Disk(folder), Turns(rng)
        stores = [TrajectoryStore.open(folder / NAME) for _ in ranks]
        with disk.watching(turns):
            ends = turns.run(
                *(
                    lambda store=store, rank=rank: write(store, *rank, disk=disk)  # type: ignore[misc]
                    for store, rank in zip(stores, ranks, strict=True)
                )
            )
        assert not any(ends), ends
        return disk

    return work


def _interrupted(folder: Path) -> TrajectoryStore:
    """A store whose second batch was being written when the power went."""
    store = create(folder)
    disk = Disk(folder)
    with disk.watching():
        write(store, disk=disk)
    moments = [moment for moment in disk.moments if len(moment.promised) == 1]
    tree = moments[len(moments) // 2].choices.draw(random.Random(3))
    shutil.rmtree(folder / NAME)
    put(folder, tree)
    return TrajectoryStore.open(folder / NAME)


def _create(folder: Path, disk: Disk) -> None:
    create(folder)
    disk.promise("made")


def _overwrite(folder: Path, disk: Disk) -> None:
    write(create(folder, overwrite=True), disk=disk)


def _two(folder: Path) -> list[TrajectoryStore]:
    sources = []
    for name, batches in (("a.zarr", (0, 1)), ("b.zarr", (2,))):
        store = create(folder, name)
        with store.writer() as one:
            for batch in batches:
                arrays = {key: values[batch : batch + 1] for key, values in DATA.items()}
                one.write_batch(batch, arrays, [batch], {"seed": [batch]})
        sources.append(store)
    return sources


def _merge(sources: list[TrajectoryStore], disk: Disk) -> None:
    merge(sources, disk.root / NAME)
    for batch in range(RUNS):
        disk.promise(batch)


def _repack(source: TrajectoryStore, disk: Disk) -> None:
    repack(source, disk.root / NAME)
    for batch in range(RUNS):
        disk.promise(batch)


def _seal(store: TrajectoryStore, disk: Disk) -> None:
    store.seal()
    disk.promise("sealed")


def _reopen(store: TrajectoryStore, disk: Disk) -> None:
    store.reopen()
    disk.promise("opened")


def _drop(store: TrajectoryStore, disk: Disk) -> None:
    from asced_stores.maintenance.verifying import drop_batches

    drop_batches(store, [1])
    write(store, disk=disk)


WORKLOADS: Mapping[str, Workload] = {
    "create": _alone(lambda folder: folder, _create),
    "one writer": _alone(create, lambda store, disk: write(store, disk=disk)),
    "observations": _alone(
        lambda folder: create(folder, spec=OBSERVED), lambda store, disk: write(store, disk=disk)
    ),
    "two writers": _together((0, 2), (1, 2)),
    "a writer that was thought dead": _together((0, 1), (0, 1)),
    "resume": _alone(_interrupted, lambda store, disk: write(store, disk=disk)),
    "overwrite": _alone(lambda folder: filled(folder) and folder, _overwrite),
    "drop": _alone(filled, _drop),
    "seal": _alone(filled, _seal),
    "reopen": _alone(lambda folder: filled(folder).seal(), _reopen),
    "repack": _alone(lambda folder: filled(folder, "a.zarr"), _repack),
    "merge": _alone(_two, _merge),
}


def failing(call: int, error: Callable[[], BaseException]) -> Workload:
    """One writer, of whose calls one fails; the same process then goes on, as with --resume."""

    def work(folder: Path, _rng: random.Random) -> Disk:
        store = create(folder)
        disk = Disk(folder, fail=call, error=error)
        with disk.watching():
            with contextlib.suppress(OSError, KeyboardInterrupt):
                write(store, disk=disk)
            write(store, disk=disk)
        return disk

    return work


KEEPS_ALL = ("seal", "reopen")
"""Nothing that was committed before may be missing at any moment."""


# --- what a crash must leave --------------------------------------------------------------------


def put(folder: Path, tree: Tree) -> None:
    """Lay a state out on the disk."""
    for path, content in tree:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


class Remains(Backend):
    """A state in memory, in a dictionary: a store in it opens in a millisecond."""

    url = "memory://crash"

    def __init__(self, tree: Tree) -> None:
        start = f"{NAME}/"
        self.files = {
            path.removeprefix(start): data for path, data in tree if path.startswith(start)
        }

    def read(self, key: str, *, limit: int | None = None) -> bytes:
        """Read a whole object."""
        if key not in self.files:
            raise FileNotFoundError(key)
        return self.files[key]

    @contextlib.contextmanager
    def reader(self, key: str) -> Iterator[Any]:
        """Open an object."""
        yield _Reader(self.read(key))

    def size(self, key: str) -> int:
        """Length in bytes."""
        return len(self.read(key))

    def create(self, key: str, parts: Any, *, owner: str = "") -> Any:
        """Make a new object."""
        if key in self.files:
            raise FileExistsError(key)
        self.files[key] = b"".join(parts)
        return id(self.files[key])

    def stamp(self, key: str) -> Any:
        """Which object lies there."""
        return id(self.files[key]) if key in self.files else None

    def make_durable(self, keys: Any) -> None:
        """Nothing is lost here."""

    def replace(self, key: str, data: bytes) -> None:
        """Write over what lies there."""
        self.files[key] = data

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.files.pop(key, None)

    def names(self, folder: str) -> list[str]:
        """Names directly in a folder."""
        inside = (key.removeprefix(f"{folder}/") for key in self.files if key.startswith(folder))
        return [name for name in inside if "/" not in name]

    def walk(self) -> Iterator[tuple[str, int]]:
        """Everything."""
        return iter([(key, len(data)) for key, data in self.files.items()])

    def zarr_store(self) -> Any:
        """Not needed."""
        raise NotImplementedError

    def copy_from(self, source: Backend, source_key: str, key: str) -> None:
        """Take over an object."""
        self.create(key, [source.read(source_key)])

    def sweep(self, prefix: str | tuple[str, ...]) -> list[str]:
        """Remove unfinished objects."""
        swept = [name for name in self.names(TEMPORARY) if name.startswith(prefix)]
        for name in swept:
            self.delete(f"{TEMPORARY}/{name}")
        return swept


class _Reader:
    group = 1 << 20

    def __init__(self, data: bytes) -> None:
        self._data = data

    def expect(self, ranges: Any) -> None:
        """Nothing to prepare."""

    def read_into(self, requests: Any) -> None:
        """Fill buffers."""
        for offset, buffers in requests:
            at = offset if offset >= 0 else offset + len(self._data)
            for buffer in buffers:
                view = memoryview(buffer).cast("B")
                part = self._data[at : at + len(view)]
                if len(part) < len(view):
                    raise EOFError
                view[:] = part
                at += len(view)


def check(workload: str, tree: Tree, promised: tuple[Any, ...], *, whole: bool) -> str:
    """Look at what a crash left, go on from there, and look again.

    Parameters
    ----------
    workload : str
        One of `WORKLOADS`.
    tree : Tree
        What the crash left.
    promised : tuple
        Batches, and the other things that had been promised by then.
    whole : bool
        Run the product's own verification too, which reads everything once more.

    Returns
    -------
    str
        What was found there.
    """
    backend: Backend = Remains(tree)
    promises = {each for each in promised if isinstance(each, int)}
    if not backend.exists("zarr.json"):
        assert not promised, f"the store is lost, {promised} was promised"
        assert workload not in KEEPS_ALL
        if workload == "create":  # another attempt finds nothing in its way
            make_room(backend, overwrite=False, known=ARRAYS)
        return "no store"
    store = TrajectoryStore(backend, read_metadata(backend))
    committed = set(store.committed_batches())
    assert promises <= committed, f"batches {sorted(promises - committed)} are lost"
    assert committed <= set(range(RUNS))
    if workload in KEEPS_ALL:
        assert committed == set(range(RUNS))
    if "sealed" in promised:
        assert store.sealed is not None
    if "opened" in promised:
        assert store.sealed is None
    _check_whole(store, committed, verified=whole)
    seen = f"{len(committed)} batches{', sealed' if store.sealed is not None else ''}"
    if workload == "seal":
        store = store.seal()
    elif workload == "merge":
        return seen
    else:
        if store.sealed is not None or backend.exists("commits/seal.json"):
            store = store.reopen()
        write(store)
    _check_whole(store, set(range(RUNS)), verified=whole)
    left = [key for key in backend.names(TEMPORARY) if not key.startswith(("replace", "x-"))]
    assert not left, f"resuming left {left}"
    return seen


@functools.cache
def _written() -> dict[str, bytes]:
    """Every shard as it must be, by its key."""
    backend = Remains(frozenset())
    with mock.patch("asced_stores.store.open_backend", return_value=backend):
        store = create(Path())
    write(store)
    return dict(backend.files)


def _check_whole(store: TrajectoryStore, batches: set[int], *, verified: bool) -> None:
    """Everything that is committed is what was written, and nothing else is shown."""
    store = store.reload()
    assert sorted(store.index["run"].tolist()) == sorted(batches)
    for batch in batches if verified else ():
        read = store.read("eps", runs=[batch], threads=1)
        np.testing.assert_array_equal(read, DATA["eps"][batch : batch + 1])
    for batch in batches:
        for key in store.shard_keys(batch).values():
            assert store.backend.read(key) == _written()[key], f"{key} is not what was written"
    for key, _ in store.backend.walk():
        folder, _, name = key.rpartition("/")
        if folder == "commits" and (batch := batch_of(name)) is not None:
            assert batch in batches
    if store.sealed is not None:
        _check_plain(store)
    if verified:
        report = store.verify(threads=1)
        assert report.ok, report.problems


def _check_plain(store: TrajectoryStore) -> None:
    """What plain Zarr readers see of a sealed store."""
    arrays = read_metadata(store.backend)["consolidated_metadata"]["metadata"]
    for name in ("run", "seed", "label", "status"):
        for key in (f"{name}/zarr.json", f"{name}/c/0"):
            assert store.backend.exists(key), f"{key} of a sealed store is missing"
        assert arrays[name]["shape"] == [RUNS]
