"""Crashes by exhaustion: states that a crash can leave, each examined and recovered from."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from crash_states import Disk
from crash_workloads import NAME, WORKLOADS, Workload, check, failing, in_order

from asced_stores import TrajectoryStore

# Most states drawn of one moment, runs of the workload (in other interleavings), and how many
# different states that must come to at least, whatever order the threads take: more than ten
# thousand together.
QUICK = {
    "create": (60, 1, 2000),
    "one writer": (400, 1, 300),
    "observations": (400, 1, 300),
    "two writers": (60, 3, 900),
    "a writer that was thought dead": (60, 4, 1500),
    "resume": (400, 1, 200),
    "overwrite": (30, 1, 2000),
    "drop": (400, 1, 200),
    "seal": (12, 1, 500),
    "reopen": (12, 1, 150),
    "repack": (30, 1, 1200),
    "merge": (30, 1, 1200),
}
FAILED_CALLS = 700
ALL = int(os.environ.get("ASCED_CRASH_STATES", "25000"))
"""The long test examines every state of a moment that has no more; of others it draws some.

Three workloads have moments beyond 25,000: seal up to 590,490, reopen 8,388,608, and overwrite,
whose two stores are independent, 10^11."""
DRAWN = 2000


class Examination:
    """Examines states, each once, and counts what was found in them."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._seen: set[Any] = set()

    def look(
        self, workload: str, disk: Disk, most: int, rng: random.Random, drawn: int | None = None
    ) -> None:
        """Examine up to so many states of each moment since a call failed, or of all moments."""
        for moment in disk.moments[disk.failed_at or 0 :]:
            for tree in moment.states(most, rng, drawn):
                if (tree, moment.promised) in self._seen:
                    continue
                self._seen.add((tree, moment.promised))
                whole = len(self._seen) % 20 == 0
                try:
                    outcome = check(workload, tree, moment.promised, whole=whole)
                except BaseException as error:
                    error.add_note(f"{workload}, {moment.promised} promised; there remain:")
                    error.add_note("\n".join(sorted(path for path, _ in tree)))
                    raise
                self.found[outcome] += 1

    @property
    def states(self) -> int:
        """How many different states were examined."""
        return len({tree for tree, _ in self._seen})


def watch(work: Workload, folder: Path, seed: int = 0) -> Disk:
    folder.mkdir(exist_ok=True)
    return work(folder, random.Random(seed))


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_crash_at_any_moment_loses_nothing(workload: str, tmp_path: Path) -> None:
    most, times, least = QUICK[workload]
    examination = Examination()
    for seed in range(times):
        with in_order():
            disk = watch(WORKLOADS[workload], tmp_path / f"{seed}", seed)
            examination.look(workload, disk, most, random.Random(seed))
    assert examination.states >= least, examination.found


def test_a_call_that_fails_loses_nothing(tmp_path: Path) -> None:
    """An fsync that fails, a disk that is full, Ctrl-C between two calls; then a crash."""
    with in_order():
        calls = len(watch(WORKLOADS["one writer"], tmp_path / "all").calls)
    examination = Examination()
    for call in range(0, calls, 4):  # some 1,000 states
        _fail(examination, tmp_path / f"{call}", call, most=1)
    assert examination.states >= FAILED_CALLS, examination.found


def _fail(examination: Examination, folder: Path, call: int, most: int) -> None:
    number = (errno.EIO, errno.ENOSPC)[call % 2]
    for name, error in (("o", lambda: OSError(number, "failed")), ("k", KeyboardInterrupt)):
        with in_order():
            disk = watch(failing(call, error), folder.with_name(f"{folder.name}{name}"))
            report = TrajectoryStore.open(disk.root / NAME).verify(threads=1)
            assert report.ok, (disk.calls[call], report.problems)
            assert not report.missing
            examination.look("one writer", disk, most, random.Random(call))


def test_there_are_ten_thousand_states() -> None:
    assert set(QUICK) == set(WORKLOADS)
    assert FAILED_CALLS + sum(least for _, _, least in QUICK.values()) >= 10_000


@pytest.mark.stress
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("workload", QUICK)
def test_every_state_is_survived(
    workload: str, tmp_path: Path, stress_counts: dict[str, Any]
) -> None:
    """Every moment's, or some of the largest ones'; what is drawn from is printed."""
    examination = Examination()
    times = QUICK[workload][1]
    moments = whole = largest = 0
    for seed in range(4 * times if times > 1 else 1):
        with in_order():
            disk = watch(WORKLOADS[workload], tmp_path / f"{seed}", seed)
            counts = [moment.choices.count for moment in disk.moments]
            moments, whole = moments + len(counts), whole + sum(n <= ALL for n in counts)
            largest = max(largest, *counts)
            examination.look(workload, disk, ALL, random.Random(seed), DRAWN)
    rest = f", {DRAWN:,} of each other (the largest has {largest:,})" * (whole < moments)
    print(f"\n{workload}: {examination.states:,} states, all of {whole} of {moments} moments{rest}")
    stress_counts[f"crash states: {workload}"] = dict(examination.found)


@pytest.mark.stress
@pytest.mark.timeout(5400)
def test_every_call_may_fail(tmp_path: Path, stress_counts: dict[str, Any]) -> None:
    with in_order():
        calls = len(watch(WORKLOADS["one writer"], tmp_path / "all").calls)
    examination = Examination()
    for call in range(calls):
        _fail(examination, tmp_path / f"call-{call}", call, most=400)
    print(f"\nfailed calls: {examination.states:,} states")
    stress_counts["crash states: failed calls"] = dict(examination.found)
