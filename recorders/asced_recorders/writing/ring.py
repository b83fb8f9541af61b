"""Writing behind the sampler's back: bounded, in order, and nothing is dropped."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from asced_recorders.writing.capture import RunBuffer
from asced_stores.errors import InputError


@dataclass(frozen=True, eq=False)
class _Job:
    """One batch that is to be written."""

    batch: int
    buffer: RunBuffer
    runs: Any
    scalars: dict[str, Any]
    extra: dict[str, Any]


class BackgroundWriter:
    """Commits batches in a thread; sampling waits where the disk is slower than the model.

    An interrupt may come between any two lines of the sampling thread, and making a buffer may
    fail. So nothing is counted: a batch is queued by one append and stays first in the queue until
    it is written, and a buffer that was lost on the way leaves the set of those that live.

    Parameters
    ----------
    write : callable
        ``write(batch, arrays, runs, scalars)``, for example `BatchWriter.write_batch`.
    depth : int
        Buffers in use at once: one being filled, the others waiting for the disk.
    on_commit : callable, optional
        Told each batch and its number of runs, in the writer's thread.
    finish : callable, optional
        Called in that thread once nothing more is written, even where `close` was interrupted.
    """

    def __init__(
        self,
        write: Callable[..., Any],
        *,
        depth: int = 2,
        on_commit: Callable[[int, int], None] | None = None,
        finish: Callable[[], None] | None = None,
    ) -> None:
        self._write = write
        self._finish = finish
        self.on_commit = on_commit
        self._jobs: deque[_Job] = deque()
        self._state = threading.Condition()
        self._spare: list[RunBuffer] = []
        self._alive: weakref.WeakSet[RunBuffer] = weakref.WeakSet()
        self._depth = depth
        self._error: BaseException | None = None
        self._closed = False
        self._begun = threading.Event()
        self._done = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close(quietly=error is not None)

    def check(self) -> None:
        """Raise what went wrong in the thread, if anything did.

        Raises
        ------
        BaseException
            The writer's own error, so that sampling stops at its next step.
        InputError
            After `close`: nobody would write what comes.
        """
        if self._closed:
            raise InputError(
                "this recorder was left, and its store is closed: make another, with resume=True "
                "to go on in the same store"
            )
        if self._error is not None:
            raise self._error

    def take(self, make: Callable[[], RunBuffer], key: tuple[Any, ...]) -> RunBuffer:
        """Hand out a buffer, waiting for the disk where all are in use.

        Parameters
        ----------
        make : callable
            Makes a new buffer.
        key : tuple
            What the buffer must be like (`RunBuffer.key`); others are let go.
        """
        with self._state:
            while True:
                self.check()
                found = [one for one in self._spare if one.key == key]
                self._spare = found[1:]
                if found:
                    return found[0]
                if len(self._alive) < self._depth:
                    buffer = make()
                    self._alive.add(buffer)
                    return buffer
                self._state.wait(timeout=1.0)

    def give_back(self, buffer: RunBuffer) -> None:
        """Return a buffer whose batch was given up.

        One that is queued stays the writer's, whatever interrupts the caller after `submit`.
        """
        with self._state:
            queued = any(job.buffer is buffer for job in self._jobs)
            if not queued and not any(buffer is one for one in self._spare):
                self._spare.append(buffer)
                self._state.notify_all()

    def submit(
        self,
        batch: int,
        buffer: RunBuffer,
        runs: Any,
        scalars: Mapping[str, Any],
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Queue a full buffer for writing.

        Parameters
        ----------
        batch : int
            Number of the batch.
        buffer : RunBuffer
            Filled; it belongs to the writer from now on.
        runs : sequence of int
            Numbers of the runs.
        scalars : mapping
            Numbers by run.
        extra : mapping, optional
            Further arrays, for example the image.
        """
        job = _Job(batch, buffer, runs, dict(scalars), dict(extra or {}))
        self._start()
        with self._state:
            self.check()
            self._jobs.append(job)
            self._state.notify_all()

    def drain(self) -> None:
        """Wait until everything queued so far is committed, or raise why it was not."""
        self.check()
        self._start()
        with self._state:
            while self._jobs and self._error is None:
                self._state.wait(timeout=1.0)
        self.check()

    def close(self, *, quietly: bool = False) -> None:
        """Wait until everything queued is committed; interrupted, it is written all the same.

        Parameters
        ----------
        quietly : bool
            Do not raise the writer's error: another one is on its way already.
        """
        with self._state:
            self._closed = True
            self._state.notify_all()
        self._start()  # for `finish`, where nothing was queued
        self._done.wait()
        if self._error is not None and not quietly:
            raise self._error

    def _start(self) -> None:
        """Start the thread at the first batch: making a writer leaves nothing behind."""
        if not self._begun.is_set():
            threading.Thread(target=self._work, name="asced-recorder", daemon=True).start()

    def _work(self) -> None:
        with self._state:
            if self._begun.is_set():  # an interrupt came while another one was started
                return
            self._begun.set()
        try:
            while self._write_next():
                pass
            if self._finish is not None:
                self._finish()
        finally:
            self._done.set()

    def _write_next(self) -> bool:
        """Write the first batch of the queue; whether another may come."""
        with self._state:
            while not self._jobs:
                if self._closed:
                    return False
                self._state.wait(timeout=1.0)  # an interrupt may come before it is notified
            job = self._jobs[0]  # it stays there until it is written
        try:
            if self._error is None:
                arrays = {**job.buffer.arrays(), **job.extra}
                self._write(job.batch, arrays, job.runs, job.scalars)
                if self.on_commit is not None:
                    self.on_commit(job.batch, job.buffer.count)
        except BaseException as error:  # it is raised in the sampling thread
            error.add_note("a batch was not committed; go on with --resume")
            self._error = error
        with self._state:
            self._jobs.popleft()
            self._spare.append(job.buffer)
            self._state.notify_all()
        return True
