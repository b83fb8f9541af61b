"""Writing behind the sampler's back: bounded, in order, and nothing is dropped."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Self

from asced_recorders.writing.capture import RunBuffer
from asced_stores.errors import InputError


class BackgroundWriter:
    """Commits batches in a thread; sampling waits where the disk is slower than the model.

    Parameters
    ----------
    write : callable
        ``write(batch, arrays, runs, scalars)``, for example `BatchWriter.write_batch`.
    depth : int
        Buffers in use at once: one being filled, the others waiting for the disk.
    on_commit : callable, optional
        Told each batch and its number of runs, in the writer's thread.
    """

    def __init__(
        self,
        write: Callable[..., Any],
        *,
        depth: int = 2,
        on_commit: Callable[[int, int], None] | None = None,
    ) -> None:
        self._write = write
        self.on_commit = on_commit
        self._jobs: queue.Queue[tuple[int, Any] | None] = queue.Queue()
        self._state = threading.Condition()
        self._spare: list[RunBuffer] = []
        self._queued: list[RunBuffer] = []
        self._made = 0
        self._depth = depth
        self._error: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="asced-recorder", daemon=True)
        self._thread.start()

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
                if self._spare:
                    buffer = self._spare.pop()
                    if buffer.key == key:
                        return buffer
                    self._made -= 1
                elif self._made < self._depth:
                    self._made += 1
                    return make()
                else:
                    self._state.wait(timeout=1.0)

    def give_back(self, buffer: RunBuffer) -> None:
        """Return a buffer whose batch was given up.

        One that is queued stays the writer's, whatever interrupts the caller after `submit`.
        """
        with self._state:
            if not any(buffer is one for one in self._queued):
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
        self.check()
        with self._state:
            self._queued.append(buffer)
        self._jobs.put((batch, (buffer, runs, dict(scalars), dict(extra or {}))))

    def drain(self) -> None:
        """Wait until everything queued so far is committed, or raise why it was not."""
        self.check()
        self._jobs.join()
        self.check()

    def close(self, *, quietly: bool = False) -> None:
        """Wait until everything queued is committed.

        Parameters
        ----------
        quietly : bool
            Do not raise the writer's error: another one is on its way already.
        """
        self._jobs.put(None)
        self._thread.join()
        try:
            if not quietly:
                self.check()
        finally:
            self._closed = True

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self._error is None:
                    self._commit(*job)
            except BaseException as error:  # it is raised in the sampling thread
                error.add_note("a batch was not committed; go on with --resume")
                with self._state:
                    self._error = error
                    self._state.notify_all()
            finally:
                self._jobs.task_done()
        self._jobs.task_done()

    def _commit(self, batch: int, job: tuple[RunBuffer, Any, Any, Any]) -> None:
        buffer, runs, scalars, extra = job
        self._write(batch, {**buffer.arrays(), **extra}, runs, scalars)
        count = buffer.count
        with self._state:
            self._queued = [one for one in self._queued if one is not buffer]
        self.give_back(buffer)
        if self.on_commit is not None:
            self.on_commit(batch, count)
