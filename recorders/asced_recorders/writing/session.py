"""A store that is being written: made when the first batch is known, or opened to go on."""

from __future__ import annotations

import itertools
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from asced_recorders.writing.capture import RunBuffer
from asced_recorders.writing.flight import FlightRecorder, observe
from asced_recorders.writing.options import StoreOptions
from asced_recorders.writing.resuming import check_resumable, launch_id
from asced_recorders.writing.ring import BackgroundWriter
from asced_stores import TrajectorySpec, TrajectoryStore
from asced_stores.backends.opening import open_backend, url_of
from asced_stores.errors import (
    BatchTakenError,
    InputError,
    NotATrajectoryStoreError,
    StoreExistsError,
    StoreNotFoundError,
)
from asced_stores.format.index import STATUSES
from asced_stores.format.metadata import begun_only
from asced_stores.format.observations import Observations, put_observations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from asced_stores.writing.writer import BatchWriter


class RecordingWarning(UserWarning):
    """A recording is complete, and something in it asks for attention."""


class Session:
    """One process's part in writing one store.

    Parameters
    ----------
    out : str
        Path or URL of the store.
    options : StoreOptions, optional
    flight : FlightRecorder, optional
        Keeps few runs of each batch, and the statistics of all; without one the options' observers
        see every batch before it is written.

    Raises
    ------
    StoreExistsError
        If a store lies there and neither `resume` nor `overwrite` is given.
    """

    def __init__(
        self,
        out: str,
        options: StoreOptions | None = None,
        *,
        flight: FlightRecorder | None = None,
    ) -> None:
        from asced_stores.writing.placement import placement

        self.out = url_of(out)
        self.options = options = options or StoreOptions()
        self.runs = options.runs
        self.rank, self.world_size = placement(options.rank, options.world_size)
        self.launch = launch_id(self.rank, self.world_size)
        self.flight = flight
        self.store: TrajectoryStore | None = None
        self.writer: BatchWriter | None = None
        self._pending: Iterator[int] | None = None
        self.ensured = False
        self._numbers: Iterator[int] | None = None
        self._given = -1
        self._begun = False
        self._turn = threading.Lock()
        self.overflows = self.overflowing = 0
        self.written = self.kept = self.failed = 0
        self.yielded: list[int] | None = None
        """Batches left to another process; None where a batch of another's is an error."""
        found = self._existing()
        replaced = options.resume or options.overwrite
        if found is not None and not replaced and not self._is_ours(found):
            raise StoreExistsError(
                f"{out} exists already: choose another path, go on with it (--resume), or replace "
                "it (--overwrite)"
            )
        if found is not None and options.resume:
            self._join(found)
        self.background = BackgroundWriter(self._write, finish=self._close_writer)

    def ensure(self, spec: TrajectorySpec, batch_size: int) -> TrajectoryStore:
        """Make the store if it is not there, else check that it is the same recording.

        Of several processes the first makes it, and the others wait for it.
        """
        if self.store is None:
            if self.world_size > 1:  # by this the others know the store
                spec = replace(spec, attributes={**spec.attributes, "launch": self.launch})
            if self.rank == 0:
                self._join(self._create(spec, batch_size))
            else:
                self._join(self._wait_for_store())
        assert self.store is not None
        if not self.ensured:
            check_resumable(self.store, spec, batch_size, self.runs)
            self.ensured = True
        return self.store

    def _create(self, spec: TrajectorySpec, batch_size: int) -> TrajectoryStore:
        """Make the store, or take the one that an interrupted call has made."""
        begun, self._begun = self._begun, True
        try:
            return TrajectoryStore.create(
                self.out,
                spec,
                runs=self.runs,
                batch_size=batch_size,
                overwrite=self.options.overwrite,
                fsync=self.options.fsync,
                storage_options=self.options.storage_options,
            )
        except Exception as error:
            found = self._existing() if begun and isinstance(error, StoreExistsError) else None
            if found is None:
                self._begun = False  # no interrupt: what lies there is somebody else's
                raise
            return found

    def joined(self) -> TrajectoryStore:
        """The store; a process that got no batch waits until the first one has made it.

        Raises
        ------
        InputError
            If it is not made within an hour.
        """
        if self.store is None:
            self._join(self._wait_for_store())
        assert self.store is not None
        return self.store

    def pending(self, batch_size: int) -> Iterator[int]:
        """Batches that fall to this process and are not committed.

        Parameters
        ----------
        batch_size : int
            Runs in a batch, for a store that is not made yet.
        """
        if self._pending is not None:
            yield from self._pending
        else:
            batches = itertools.count() if self.runs is None else range(-(-self.runs // batch_size))
            yield from itertools.islice(batches, self.rank, None, self.world_size)

    def next_batch(self, batch_size: int) -> int:
        """Number of the next batch that falls to this process.

        Raises
        ------
        InputError
            If the store holds all the runs that were planned.
        """
        with self._turn:
            if self._numbers is None:
                self._numbers = self.pending(batch_size)
            try:
                batch = next(self._numbers, None)
            except BaseException:  # an interrupt ends a generator for good: go on after its last
                self._numbers = None
                if self.store is not None and self.writer is not None:
                    later = range(self._given + 1, self.store.batches)
                    self._pending = self.writer.pending_batches(later)
                raise
            if batch is None:
                raise InputError(f"{self.out} holds all the runs it was planned for")
            self._given = batch
        return batch

    def warn(self) -> None:
        """Say what of the recording float16 could not hold."""
        if self.overflows:
            warnings.warn(
                f"{self.overflows} values of eps or x0 in {self.overflowing} runs of {self.out} "
                "are infinite (float16 ends at 65,504): record with dtype='float32', or leave the "
                "steps where they lie out of the analysis",
                RecordingWarning,
                stacklevel=3,
            )

    def append(
        self,
        buffer: RunBuffer,
        batch_size: int,
        scalars: Mapping[str, Any],
        images: NDArray[np.uint8] | None = None,
        arrays: Mapping[str, Any] | None = None,
    ) -> None:
        """Queue a batch of runs that are numbered as they come."""
        batch = self.next_batch(batch_size)
        runs = range(batch * batch_size, batch * batch_size + buffer.count)
        self.submit(batch, buffer, runs, scalars, images, arrays)

    def submit(
        self,
        batch: int,
        buffer: RunBuffer,
        runs: Sequence[int],
        scalars: Mapping[str, Any],
        images: NDArray[np.uint8] | None = None,
        arrays: Mapping[str, Any] | None = None,
    ) -> None:
        """Queue a batch; what the store has no variable for is left out."""
        more = dict(arrays or {}) | ({} if images is None else {"image": images})
        self.background.submit(batch, buffer, np.asarray(runs, dtype=np.int64), scalars, more)

    def close(self, *, quietly: bool = False) -> None:
        """Wait for the disk, and stop the threads."""
        self.background.close(quietly=quietly)

    def _existing(self) -> TrajectoryStore | None:
        options = self.options.storage_options
        try:
            return TrajectoryStore.open(self.out, fsync=self.options.fsync, storage_options=options)
        except StoreNotFoundError:
            return None
        except NotATrajectoryStoreError:
            # Its root comes last: the first process is just laying it out, or was killed meanwhile.
            if self.rank > 0 or begun_only(open_backend(self.out, storage_options=options)):
                return None
            raise

    def _is_ours(self, store: TrajectoryStore) -> bool:
        """Whether the first process of this very launch has made the store just now."""
        return self.rank > 0 and store.spec.attributes.get("launch") == self.launch

    def _wait_for_store(self, seconds: float = 3600.0) -> TrajectoryStore:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self._existing()
            if found is not None and self._is_ours(found):
                return found
            self.background.check()
            time.sleep(0.2)
        raise InputError(
            f"process 0 of {self.world_size} did not make {self.out} within {seconds:.0f} s: "
            "see its log, and whether all processes see the same file system"
        )

    def _join(self, store: TrajectoryStore) -> None:
        self.writer = store.writer(self.rank, self.world_size)
        self._pending = self.writer.pending_batches()
        self.store = store

    def _close_writer(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _write(self, batch: int, arrays: dict[str, Any], runs: Any, scalars: Any) -> None:
        assert self.writer is not None
        assert self.store is not None
        names = {variable.name for variable in self.store.spec.variables}
        wanted = {name: array for name, array in arrays.items() if name in names}
        if self.flight is None:
            seen = None
            if self.options.observers:
                seen, _ = observe(
                    self.options.observers,
                    wanted,
                    [int(run) for run in runs],
                    self.store.spec,
                    scalars,
                )
            self._commit(batch, wanted, runs, scalars, seen)
            return
        flight, size = self.flight, self.store.batch_size
        if int(runs[0]) == batch * size:
            flight.clear()
        flight.add(wanted, [int(run) for run in runs], scalars, self.store.spec)
        end = (batch + 1) * size if self.runs is None else min((batch + 1) * size, self.runs)
        if int(runs[-1]) + 1 == end:
            self._commit(batch, *flight.finish())

    def _commit(
        self, batch: int, arrays: Any, runs: Any, scalars: Any, seen: Observations | None
    ) -> None:
        """Write a batch, or go on where somebody else has committed it meanwhile.

        Runs of a plan, which their number decides, are left to who has them, if that was agreed on;
        runs that are numbered as they come take the next free batch.
        """
        assert self.writer is not None
        assert self.store is not None
        while True:
            try:
                if seen is not None and not self.is_committed(batch):
                    self.written += put_observations(self.store, batch, seen)
                marker = self.writer.write_batch(batch, arrays, runs, scalars)
                break
            except BatchTakenError:
                if self.yielded is not None:
                    self.yielded.append(batch)
                    return
                if self._numbers is None:
                    raise
                following = self.next_batch(self.store.batch_size)
                runs = np.asarray(runs) + (following - batch) * self.store.batch_size
                batch = following
        self.kept += marker.runs
        self.failed += int((np.asarray(marker.scalars["status"]) == STATUSES["failed"]).sum())
        beyond = np.asarray(marker.scalars["overflows"])
        self.overflows += int(beyond.sum())
        self.overflowing += int((beyond > 0).sum())
        self.written += marker.nbytes

    def is_committed(self, batch: int) -> bool:
        """Whether anyone committed it, a process thought dead for example."""
        return self.store is not None and self.store.backend.exists(f"commits/{batch}.json")

    def check_yielded(self) -> None:
        """Make sure that whoever took a batch from this process also committed it."""
        lost = [batch for batch in self.yielded or () if not self.is_committed(batch)]
        if lost:
            raise BatchTakenError(
                f"batches {lost[:8]} of {self.out} were taken over by another process, which has "
                "not committed them: wait until it ends, then record what is missing with --resume"
            )
