"""Verifying: every byte of every committed batch against its checksum."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from asced_stores.backends.backend import TEMPORARY
from asced_stores.errors import AscedError
from asced_stores.format.checksums import extend
from asced_stores.format.markers import Marker, batch_of
from asced_stores.format.observations import has_observations, load_observations, observation_key

if TYPE_CHECKING:
    from asced_stores.format.opened import OpenedStore

_PIECE = 4 << 20


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Parameters
    ----------
    message : str
        What was found.
    key : str
        Where, relative to the store.
    batch : int or None
        Which batch; None where it is the store as a whole.
    """

    message: str
    key: str
    batch: int | None = None

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Parameters
    ----------
    problems : sequence of Problem
        Empty where all is well.
    batches, runs, bytes : int
        Committed batches, their runs, and the bytes that were read.
    missing : sequence of int
        Planned batches that are not committed: not damage, `--resume` records them.
    leftovers : sequence of str
        What lies of batches that were never committed: not damage, `--resume` sweeps it.
    dropped : sequence of int
        Damaged batches that were taken out.
    observed : int
        Runs whose statistics a recording with `keep` has, in full or not.
    """

    problems: Sequence[Problem]
    batches: int
    runs: int
    bytes: int
    missing: Sequence[int] = ()
    leftovers: Sequence[str] = ()
    dropped: Sequence[int] = ()
    observed: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"ok": self.ok, **asdict(self)}


def verify(
    store: OpenedStore,
    progress: Callable[[int, int], None] | None = None,
    *,
    drop: bool = False,
    threads: int = 2,
) -> VerifyReport:
    """Check every committed batch: markers, lengths and checksums of all shards, metadata, index.

    Parameters
    ----------
    store : OpenedStore
        Sealed or not.
    progress : callable, optional
        Called with the batches done and their number.
    drop : bool
        Take damaged batches out, the marker first, so that they can be recorded again; a sealed
        store is opened again for that.
    threads : int
        Batches checked at once.

    Returns
    -------
    VerifyReport
    """
    store = store.reload()
    batches = store.committed_batches()
    problems: list[Problem] = list(_check_metadata(store))
    markers: dict[int, Marker] = {}
    observed: set[int] = set()
    size = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="asced-verify") as pool:
        checks = pool.map(lambda batch: _check_batch(store, batch), batches)
        for done, (batch, (marker, found, read, seen)) in enumerate(
            zip(batches, checks, strict=True)
        ):
            problems += found
            size += read
            observed.update(seen)
            if marker is not None:
                markers[batch] = marker
            if progress is not None:
                progress(done + 1, len(batches))
    problems += _check_runs(markers)
    if has_observations(store) and not problems:
        problems += _check_observed(markers, observed)
    if store.sealed is not None:
        problems += _check_index(store, markers)
    dropped: list[int] = []
    if drop:
        dropped = sorted({p.batch for p in problems if p.batch is not None})
        if dropped:
            drop_batches(store, dropped)
    planned = range(store.batches if store.planned_runs is not None else 0)
    return VerifyReport(
        problems=problems,
        batches=len(batches),
        runs=sum(marker.runs for marker in markers.values()),
        bytes=size,
        missing=sorted(set(planned) - set(batches)),
        leftovers=sorted(find_leftovers(store)),
        dropped=dropped,
        observed=len(observed),
    )


def drop_batches(store: OpenedStore, batches: Sequence[int]) -> None:
    """Take batches out, the marker first; a sealed store is opened for writing by it."""
    from asced_stores.format.compaction import forget_packs
    from asced_stores.maintenance.sealing import reopen

    backend = store.backend
    if store.sealed is not None:
        store = reopen(store)
    forget_packs(store)
    markers = [f"commits/{batch}.json" for batch in batches]
    for marker in markers:
        backend.delete(marker)
    backend.make_durable(markers)  # before their shards go, or a crash would leave damage
    for batch in batches:
        for key in (*store.shard_keys(batch).values(), observation_key(batch)):
            backend.delete(key)


def find_leftovers(store: OpenedStore) -> Iterator[str]:
    """Keys of what was written of batches that were never committed."""
    committed = set(store.committed_batches())
    arrays = {*store.layouts, "status"}
    for key, _ in store.backend.walk():
        parts = key.split("/")
        shard = parts[0] in arrays and parts[1:2] == ["c"] and parts[2:3]
        batch = batch_of(f"{parts[2]}.json") if shard else None
        if parts[0] == "observations" and len(parts) == 2:
            shard, batch = [key], batch_of(parts[1].replace(".npz", ".json"))
        if key.startswith(TEMPORARY) or (shard and batch not in committed):
            yield key


def _check_batch(
    store: OpenedStore, batch: int
) -> tuple[Marker | None, list[Problem], int, Sequence[int]]:
    """Marker, problems, bytes read, and the runs that were observed."""
    key = f"commits/{batch}.json"
    try:
        marker = store.marker(batch)
    except (AscedError, OSError) as error:
        return None, [Problem(str(error), key, batch)], 0, ()
    problems: list[Problem] = []
    size, seen = 0, []
    for name, key in store.shard_keys(batch).items():
        record = marker.shards[name]
        try:
            checksum, length = _checksum(store, key, record.nbytes)
        except (FileNotFoundError, NotADirectoryError):
            problems.append(Problem("a committed shard is missing", key, batch))
            continue
        except (AscedError, OSError) as error:
            problems.append(Problem(str(error), key, batch))
            continue
        size += length
        if length != record.nbytes:
            message = f"has {length} bytes, {record.nbytes} were committed"
            problems.append(Problem(message, key, batch))
        elif checksum != record.crc32c:
            problems.append(Problem("does not match its checksum", key, batch))
    if has_observations(store):
        try:
            seen = load_observations(store, batch).runs.tolist()
            size += store.backend.size(observation_key(batch))
        except (AscedError, OSError) as error:
            problems.append(Problem(str(error), observation_key(batch), batch))
    return marker, problems, size, seen


def _checksum(store: OpenedStore, key: str, expected: int) -> tuple[int, int]:
    """CRC-32C and length of an object; of one with another length, the length only."""
    length = store.backend.size(key)
    if length != expected:
        return 0, length
    checksum = at = 0
    buffer = np.empty(min(_PIECE, length), np.uint8)
    with store.backend.reader(key) as reader:
        while at < length:
            piece = buffer[: min(len(buffer), length - at)]
            try:
                reader.read_into([(at, [piece])])
            except EOFError:
                return 0, at
            checksum = extend(checksum, piece)
            at += len(piece)
    return checksum, length


def _check_runs(markers: Mapping[int, Marker]) -> Iterator[Problem]:
    """No run may lie in two batches."""
    counts = Counter(run for marker in markers.values() for run in marker.scalars["run"].tolist())
    twice = {run for run, count in counts.items() if count > 1}
    for batch, marker in markers.items():
        shared = sorted(twice.intersection(marker.scalars["run"].tolist()))
        if shared:
            message = f"holds runs that another batch holds too, for example run {shared[0]}"
            yield Problem(message, f"commits/{batch}.json")


def _check_observed(markers: Mapping[int, Marker], observed: set[int]) -> Iterator[Problem]:
    """Every run that is kept in full was observed."""
    for batch, marker in markers.items():
        unseen = sorted(set(marker.scalars["run"].tolist()) - observed)
        if unseen:
            yield Problem(f"holds run {unseen[0]}, which was not observed", f"commits/{batch}.json")


def _check_metadata(store: OpenedStore) -> Iterator[Problem]:
    """What plain Zarr readers go by must say the same as the root."""
    import json

    from asced_stores.format.metadata import plain_chunk, run_arrays, step_arrays

    length = store.capacity if store.sealed is None else store.sealed["slots"]
    expected: dict[str, Any] = {
        f"{name}/zarr.json": metadata
        for name, metadata in run_arrays(store.layouts, store.batch_size, length).items()
    }
    for name, (metadata, values) in step_arrays(store.spec).items():
        expected[f"{name}/zarr.json"] = metadata
        expected[f"{name}/c/0"] = plain_chunk(values)
    for key, wanted in expected.items():
        found: Any = None
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, AscedError):
            found = store.backend.read(key, limit=16 * len(str(wanted)) + 4096)
        same = found == wanted
        if found is not None and isinstance(wanted, dict):
            with contextlib.suppress(ValueError, RecursionError):
                same = json.loads(found) == wanted
        if not same:
            what = "is missing" if found is None else "is not what the store's root says"
            yield Problem(f"{what}; `asced seal --reopen` and sealing writes it anew", key)


def _check_index(store: OpenedStore, markers: Mapping[int, Marker]) -> Iterator[Problem]:
    from asced_stores.format.sealed_index import read_columns

    assert store.sealed is not None
    key = f"commits/{store.sealed['index']}"
    try:
        index = read_columns(store)
    except (AscedError, OSError) as error:
        yield Problem(str(error), key)
        return
    indexed = set(index["batch"].tolist())
    for batch in sorted(indexed - set(store.committed_batches())):
        yield Problem(f"the index names batch {batch}, which is not committed", key)
    for batch in sorted(set(markers) - indexed):
        message = "was committed after the seal, and readers do not see it: reopen and seal again"
        yield Problem(message, f"commits/{batch}.json")
