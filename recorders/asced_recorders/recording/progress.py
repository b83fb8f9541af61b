"""How far a recording is: one event a batch, for a bar or a scheduler's log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from asced_recorders.recording.cost import disk_free

Event = dict[str, Any]


class ProgressReport:
    """Counts committed runs and tells what a person or a log wants to know.

    Parameters
    ----------
    tell : callable or None
        Receives each event, a JSON-able dict with the key ``event``.
    runs : int
        That fall to this process.
    out : str
        Path of the store, for the free disk.
    """

    def __init__(self, tell: Callable[[Event], None] | None, runs: int, out: str) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self.runs = runs
        self.out = out
        self.done = 0
        self.began = time.monotonic()

    def start(self, cost: dict[str, Any], **facts: Any) -> None:
        """Say what is about to be recorded; the clock starts here."""
        self.began = time.monotonic()
        self._emit({"event": "start", "runs": self.runs, **cost, **facts})

    def committed(self, batch: int, runs: int, written: int, kept: int, failed: int) -> None:
        """A batch is safe on the disk (called in the writer's thread).

        ``written``, ``kept`` and ``failed`` are the bytes, the runs in full and those that failed
        (NaN, infinity) of this process so far.
        """
        self.done += runs
        seconds = time.monotonic() - self.began
        rate = self.done / seconds if seconds > 0 else 0.0
        self._emit(
            {
                "event": "batch",
                "batch": batch,
                "done": self.done,
                "runs": self.runs,
                "runs_per_second": round(rate, 4),
                "kept": kept,
                "failed": failed,
                "bytes": written,
                "disk_free": disk_free(self.out),
                "seconds_left": round((self.runs - self.done) / rate, 1) if rate else None,
            }
        )

    def say(self, event: str, **facts: Any) -> None:
        """Tell anything else."""
        self._emit({"event": event, "done": self.done, "runs": self.runs, **facts})

    def _emit(self, event: Event) -> None:
        if self._tell is not None:
            with self._lock:
                self._tell(event)
