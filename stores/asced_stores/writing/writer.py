"""Writing batches: shards first, each made only once, and the marker last."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asced_stores.backends.backend import Stamp
from asced_stores.errors import (
    AscedError,
    BatchTakenError,
    DamagedBatchError,
    InputError,
    SealedStoreError,
)
from asced_stores.format.checksums import crc32c
from asced_stores.format.compaction import PACK_EVERY, compact, forget_packs
from asced_stores.format.markers import Marker, ShardRecord
from asced_stores.format.shards import ShardEncoder
from asced_stores.format.steps_on_disk import StepsOnDisk
from asced_stores.writing.not_finite import Faults, finite_runs
from asced_stores.writing.scalars import cast_scalar

if TYPE_CHECKING:
    from asced_stores.format.opened import OpenedStore

ABSENT, COMPLETE, FAILED = 0, 1, 2
MUST_BE_FINITE = ("sample", "eps")
STEPWISE = ("eps", "x0")
_DEFAULTS: Mapping[str, Any] = {
    "seed": -1,
    "prompt": "",
    "label": -1,
    "guidance_scale": np.nan,
    "arguments": "",
    "overflows": 0,
    "first_bad_step": -1,
}


class BatchWriter:
    """Writer of the batches with ``batch % world_size == rank``; made by `TrajectoryStore.writer`.

    It holds no copy of a batch unless it must be cast. Variables are written in two threads.
    """

    def __init__(self, store: OpenedStore, rank: int, world_size: int) -> None:
        self.store = store
        self.rank = rank
        self.world_size = world_size
        self._commits = 0
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="asced-store")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; everything written is already on the disk."""
        self._pool.shutdown()

    def pending_batches(self, among: Collection[int] | None = None) -> Iterator[int]:
        """Batches of this rank that are not committed, swept clean of what a dead writer left.

        Parameters
        ----------
        among : collection of int, optional
            Look at these alone. Without it, and without a planned number of runs, they go on up to
            the store's capacity: 16,384 batches, and half a dozen requests each.
        """
        self._refuse_sealed()
        done = set(self.store.committed_batches())
        self.store.backend.sweep(tuple(f"{batch}-" for batch in done))  # a crash brings them back
        mine = range(self.rank, self.store.batches, self.world_size)
        for batch in mine if among is None else sorted(set(among).intersection(mine)):
            if batch in done or self.store.backend.exists(f"commits/{batch}.json"):
                continue
            if self.sweep(batch):
                yield batch

    def sweep(self, batch: int) -> bool:
        """Remove what lies of a batch that was never committed.

        Returns
        -------
        bool
            False where a lingering writer committed it meanwhile: then it is theirs.
        """
        backend = self.store.backend
        marker = f"commits/{batch}.json"
        backend.sweep(f"{batch}-")
        for key in self.store.shard_keys(batch).values():
            if backend.exists(key):
                if backend.exists(marker):
                    return False
                backend.delete(key)
        return not backend.exists(marker)

    def write_batch(
        self,
        batch: int,
        arrays: Mapping[str, ArrayLike],
        runs: Sequence[int] | NDArray[Any] | None = None,
        scalars: Mapping[str, ArrayLike] | None = None,
    ) -> Marker:
        """Write a batch and commit it.

        Parameters
        ----------
        batch : int
            Its number, one of this rank's.
        arrays : mapping of str to array, shape (n, ...)
            All variables of the store, with ``n`` runs, at most ``batch_size``; of large runs
            `StepsOnDisk`.
        runs : sequence of int, optional
            Numbers of the runs, by default ``batch*batch_size + arange(n)``.
        scalars : mapping of str to array, shape (n,), or one value for all
            ``seed``, ``prompt``, ``label``, ``guidance_scale``, ``status`` (1 complete, 2 failed;
            by default 2 where ``sample`` or ``eps`` is not finite) and the store's own.

        Returns
        -------
        Marker
            What was committed.

        Raises
        ------
        InputError
            If something is missing, unknown or of the wrong shape; nothing was written.
        BatchTakenError
            If another writer committed the batch or took it over.
        SealedStoreError
            If the store was sealed meanwhile. What was written stays, for `TrajectoryStore.reopen`.
        """
        prepared = self._prepare(batch, arrays)
        count = len(next(iter(prepared.values()))) if prepared else len(runs or ())
        numbers = self._scalars(batch, count, runs, scalars or {})
        backend, owner = self.store.backend, f"{batch}-{self.rank}-"
        if backend.exists(f"commits/{batch}.json"):
            raise BatchTakenError(f"batch {batch} of {self.store.path} is committed already")
        made: dict[str, Stamp] = {}
        token = uuid.uuid4().hex
        judge = "status" not in numbers
        try:
            jobs = [
                self._pool.submit(self._write_shard, name, batch, array, owner, made, judge)
                for name, array in prepared.items()
            ]
            wait(jobs)
            self._reached("shards")
            shards, finite, faults = {}, np.ones(count, bool), Faults(count)
            for name, job in zip(prepared, jobs, strict=True):
                shards[name], whole, found = job.result()
                finite &= whole
                faults.join(found)
            if judge:
                numbers["status"] = np.where(finite, COMPLETE, FAILED).astype(np.uint8)
                numbers |= {"overflows": faults.overflows, "first_bad_step": faults.first}
            # The status last: plain readers filter by it.
            shards["status"] = self._write_status(batch, numbers["status"], owner, made)
            self._reached("status")
            backend.make_durable(made)
            self._reached("durable")
            return self._commit(batch, numbers, shards, made, owner, token)
        except SealedStoreError:
            raise
        except BaseException as error:
            with contextlib.suppress(AscedError, OSError):  # what stays is swept by the next writer
                self._withdraw(batch, made, token)
            if isinstance(error, (FileExistsError, FileNotFoundError)):
                raise self._taken(batch) from error  # or a sweeper took the temporary file away
            raise

    def _withdraw(self, batch: int, made: Mapping[str, Stamp], token: str) -> None:
        """Remove what this writer made of a batch that it could not commit.

        Where its marker was made before the error came (an interrupt, an fsync that failed), the
        batch is whole, and stays.
        """
        backend, key = self.store.backend, f"commits/{batch}.json"
        if self._marked(batch, token):
            if self._owns(made):
                return
            forget_packs(self.store)
            backend.delete(key)
            backend.make_durable([key])  # before its shards go, or a crash would leave damage
        for key, stamp in made.items():
            if backend.stamp(key) == stamp:
                backend.delete(key)

    def _marked(self, batch: int, token: str) -> bool:
        """Whether the marker of a batch is this writer's."""
        if not self.store.backend.exists(f"commits/{batch}.json"):
            return False
        with contextlib.suppress(DamagedBatchError):
            return self.store.marker(batch).token == token
        return False

    def _reached(self, point: str) -> None:
        """Do nothing at a named point of a commit; where stress tests kill the writer."""

    def _taken(self, batch: int) -> BatchTakenError:
        return BatchTakenError(
            f"batch {batch} of {self.store.path} was taken over by another writer: "
            "stop this one, or sweep what it left by going through pending_batches() again"
        )

    def _write_shard(
        self,
        name: str,
        batch: int,
        array: NDArray[Any] | StepsOnDisk,
        owner: str,
        made: dict[str, Stamp],
        judge: bool,
    ) -> tuple[ShardRecord, Any, Faults]:
        """Write one variable; the second value says which runs are finite, the third where not."""
        finite: Any = True
        faults = Faults(len(array))
        if judge and name in (*MUST_BE_FINITE, *STEPWISE):
            whole = finite_runs(array)
            finite = whole if name in MUST_BE_FINITE else True
            if name in STEPWISE:
                faults.look(array, whole)
        encoder = ShardEncoder(array, self.store.layouts[name])
        key = self.store.layouts[name].key(batch)
        made[key] = self.store.backend.create(key, encoder.parts(), owner=owner)
        self._reached(f"shard {name}")
        return ShardRecord(encoder.nbytes, encoder.checksum), finite, faults

    def _write_status(
        self, batch: int, status: NDArray[Any], owner: str, made: dict[str, Stamp]
    ) -> ShardRecord:
        from asced_stores.format.metadata import plain_chunk

        slots = np.zeros(self.store.batch_size, np.uint8)
        slots[: len(status)] = status
        data, key = plain_chunk(slots), self.store.status_key(batch)
        made[key] = self.store.backend.create(key, [data], owner=owner)
        return ShardRecord(len(data), crc32c(data))

    def _commit(
        self,
        batch: int,
        numbers: Mapping[str, NDArray[Any]],
        shards: Mapping[str, ShardRecord],
        made: Mapping[str, Stamp],
        owner: str,
        token: str,
    ) -> Marker:
        backend, key = self.store.backend, f"commits/{batch}.json"
        marker = Marker(
            batch=batch,
            fingerprint=self.store.fingerprint,
            scalars=numbers,
            shards=shards,
            rank=self.rank,
            world_size=self.world_size,
            token=token,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        if not self._owns(made):
            raise self._taken(batch)
        backend.create(key, [marker.to_bytes()], owner=owner)
        self._reached("marker")
        backend.make_durable([key])
        self._reached("committed")
        # A sweeper that looked just before the marker came may have removed shards since.
        if not self._owns(made):
            raise self._taken(batch)
        self._refuse_sealed(batch)
        self._commits += 1
        if self._commits % PACK_EVERY == 0:
            compact(self.store)
        return marker

    def _owns(self, made: Mapping[str, Stamp]) -> bool:
        return all(self.store.backend.stamp(key) == stamp for key, stamp in made.items())

    def _refuse_sealed(self, batch: int | None = None) -> None:
        backend = self.store.backend
        if not backend.exists("commits/seal.json"):
            return
        if batch is not None:
            from asced_stores.format.sealed_index import sealed_batches

            if batch in sealed_batches(self.store):
                return
        kept = "" if batch is None else f"; batch {batch} is kept, but readers do not see it"
        raise SealedStoreError(
            f"{self.store.path} is sealed{kept}: open it for further runs with "
            "`asced seal --reopen`, and seal it again afterwards"
        )

    # --- checking what is given -----------------------------------------------------------------

    def _prepare(self, batch: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
        store = self.store
        if isinstance(batch, bool) or not 0 <= batch < store.batches:
            raise InputError(
                f"batch is {batch}: {store.path} has room for batches 0 to {store.batches - 1}"
            )
        if batch % self.world_size != self.rank:
            raise InputError(
                f"batch {batch} falls to rank {batch % self.world_size} of {self.world_size}, "
                f"this is rank {self.rank}"
            )
        missing = sorted(set(store.layouts) - set(arrays))
        unknown = sorted(set(arrays) - set(store.layouts))
        if missing or unknown:
            raise InputError(
                f"batch {batch} lacks variables {missing} and has unknown ones {unknown}: "
                f"expected {sorted(store.layouts)}"
            )
        prepared: dict[str, Any] = {}
        for name, layout in store.layouts.items():
            given = arrays[name]
            array: Any = given if isinstance(given, StepsOnDisk) else np.asarray(given)
            if array.ndim == 0 or array.shape[1:] != layout.variable.shape:
                raise InputError(
                    f"{name} has shape {array.shape}: expected (n, "
                    f"{', '.join(map(str, layout.variable.shape))}) with n runs"
                )
            if not np.can_cast(array.dtype, layout.dtype, "same_kind"):
                raise InputError(f"{name} is {array.dtype}: expected {layout.variable.dtype}")
            if isinstance(array, StepsOnDisk):
                prepared[name] = array
                continue
            with np.errstate(over="ignore"):  # beyond float16 is infinite, and a failed run
                prepared[name] = np.ascontiguousarray(array, dtype=layout.dtype)
        counts = {len(array) for array in prepared.values()}
        if len(counts) > 1 or not 1 <= max(counts, default=1) <= store.batch_size:
            raise InputError(
                f"the variables of batch {batch} have {sorted(counts)} runs: expected the same "
                f"number in all, 1 to {store.batch_size}"
            )
        return prepared

    def _scalars(
        self,
        batch: int,
        count: int,
        runs: Sequence[int] | NDArray[Any] | None,
        given: Mapping[str, ArrayLike],
    ) -> dict[str, NDArray[Any]]:
        store = self.store
        first = batch * store.batch_size
        if first + count > store.capacity:
            raise InputError(
                f"batch {batch} holds {count} runs, but {store.path} ends at run slot "
                f"{store.capacity}: expected at most {store.capacity - first}"
            )
        values: dict[str, ArrayLike] = dict(_DEFAULTS)
        values["run"] = first + np.arange(count) if runs is None else np.asarray(runs)
        unknown = sorted(set(given) - set(store.scalar_dtypes))
        if unknown:
            raise InputError(f"{unknown} are no numbers by run: {sorted(store.scalar_dtypes)} are")
        values |= given
        numbers = {}
        for name, dtype in store.scalar_dtypes.items():
            if name == "status" and name not in values:
                continue  # known once the arrays have been looked through
            if name not in values:
                raise InputError(f"the number by run {name!r} is missing in batch {batch}")
            numbers[name] = cast_scalar(name, values[name], dtype, count)
        if len(set(numbers["run"].tolist())) != count or (numbers["run"] < 0).any():
            raise InputError(f"runs of batch {batch} are not {count} different numbers from 0 on")
        if not np.isin(numbers.get("status", COMPLETE), (COMPLETE, FAILED)).all():
            raise InputError(f"status of batch {batch} is neither 1 (complete) nor 2 (failed)")
        return numbers
