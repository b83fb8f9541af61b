"""Work behind the page: one thread, in small pieces, the urgent first, never before an answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asced_stores.errors import AscedError

PATIENCE = 0.5
"""Seconds that a piece of work waits for answers to be finished."""


class Background:
    """Jobs given as iterators, of which one step at a time is taken in a thread.

    A job's errors are kept by its name in `errors`; they end that job alone.
    """

    def __init__(self) -> None:
        self._jobs: list[tuple[int, str, Iterator[Any]]] = []
        self._change = threading.Condition()
        self._answering = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        self.errors: dict[str, str] = {}

    def add(self, name: str, pieces: Iterator[Any], *, rank: int = 0) -> None:
        """Start a job; jobs of a lower rank go first, those of one rank in order."""
        with self._change:
            if self._closed:
                return
            self._jobs.append((rank, name, pieces))
            self._jobs.sort(key=lambda job: job[0])
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="asced-viewer", daemon=True)
                self._thread.start()
            self._change.notify_all()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While this is held, no new piece of work begins (for at most `PATIENCE`)."""
        with self._change:
            self._answering += 1
        try:
            yield
        finally:
            with self._change:
                self._answering -= 1
                self._change.notify_all()

    def pending(self) -> list[str]:
        """Names of the jobs that are not finished."""
        with self._change:
            return [name for _, name, _ in self._jobs]

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait until nothing is left to do; whether that came true."""
        with self._change:
            return self._change.wait_for(lambda: not self._jobs, timeout)

    def close(self) -> None:
        """Drop what is left, and wait for the piece at hand."""
        with self._change:
            self._closed = True
            self._jobs.clear()
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=30)

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or bool(self._jobs))
                if self._closed:
                    return
                self._change.wait_for(lambda: self._closed or not self._answering, PATIENCE)
                if self._closed:
                    return
                job = self._jobs[0]
            finished = self._take(job[1], job[2])
            with self._change:
                if finished and job in self._jobs:
                    self._jobs.remove(job)
                self._change.notify_all()

    def _take(self, name: str, pieces: Iterator[Any]) -> bool:
        """One step of a job; whether it was the last."""
        try:
            next(pieces)
        except StopIteration:
            return True
        except AscedError as error:
            self.errors[name] = str(error)
            return True
        except Exception as error:  # the page goes on without this job, and says so
            self.errors[name] = f"{type(error).__name__}: {error}"
            return True
        return False
