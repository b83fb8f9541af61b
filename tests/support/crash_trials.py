"""Trials of survival: killed writers, full disks, flipped bits, crowds.

Each function returns counts and raises `AssertionError` at the first loss. They need no torch, and
run as ``python tests/support/crash_trials.py kills --count 200``, which prints one JSON object:
a process of its own, with one thread, so that it may fork.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asced_stores.errors import (
    AscedError,
    BatchTakenError,
    DamagedStoreError,
    DiskFullError,
    IncompleteStoreError,
    SealedStoreError,
)
from asced_stores.reading.datasets import open_runs
from asced_stores.store import TrajectoryStore
from asced_stores.testing.synthetic import synthetic_batch, synthetic_spec, synthetic_store
from asced_stores.writing.writer import BatchWriter

RUNS, BATCH, STEPS, SHAPE = 24, 4, 4, (1, 16, 16)
POINTS = (
    *("shard eps", "shard x0", "shard x_init", "shard sample", "shard image"),
    *("shards", "status", "durable", "marker", "committed", "link"),
)


class DoomedWriter(BatchWriter):
    """A writer that kills itself at a named point of one batch."""

    doom: tuple[int, str] = (-1, "")
    _current = -1

    def write_batch(self, batch: int, *arguments: Any, **options: Any) -> Any:
        """Write a batch, and remember which."""
        self._current = batch
        return super().write_batch(batch, *arguments, **options)

    def _reached(self, point: str) -> None:
        if (self._current, point) == self.doom:
            os.kill(os.getpid(), signal.SIGKILL)


def write_pending(
    store: TrajectoryStore, rank: int, world_size: int, doom: tuple[int, str] = (-1, "")
) -> None:
    """Write what is missing, perhaps not to the end."""
    expected = expected_runs(store)
    with DoomedWriter(store, rank, world_size) as writer:
        writer.doom = doom
        if doom[1] == "link":  # between the temporary file and its name
            link = os.link

            def doomed_link(source: Any, target: Any, **options: Any) -> None:
                if f"/c/{doom[0]}/" in str(target):
                    os.kill(os.getpid(), signal.SIGKILL)
                link(source, target, **options)

            os.link = doomed_link  # type: ignore[assignment]
        for batch in writer.pending_batches():
            runs = np.arange(batch * BATCH, min((batch + 1) * BATCH, RUNS))
            arrays = {name: values[runs] for name, values in expected.items()}
            writer.write_batch(batch, arrays, runs, {"seed": runs})


_EXPECTED: dict[str, dict[str, Any]] = {}


def expected_runs(store: TrajectoryStore) -> dict[str, Any]:
    """What every run must hold, drawn once."""
    if store.fingerprint not in _EXPECTED:
        _EXPECTED[store.fingerprint] = synthetic_batch(store.spec, range(RUNS))
    return _EXPECTED[store.fingerprint]


def check_intact(store: TrajectoryStore, *, complete: bool) -> int:
    """Compare every committed run with what was written; returns their number."""
    store = store.reload()
    report = store.verify()
    assert report.ok, report.problems
    runs = store.index["run"]
    assert len(set(runs.tolist())) == len(runs)
    for name, values in expected_runs(store).items():  # one thread: this process forks
        np.testing.assert_array_equal(store.read(name, threads=1), values[runs])
    if complete:
        assert sorted(runs.tolist()) == list(range(RUNS))
        assert not report.leftovers, report.leftovers
        assert not report.missing
    return len(runs)


def fork(work: Callable[[], None]) -> int:
    """Run something in a child process; 0 is its good end, 3 a typed error."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except AscedError:
        status = 3
    finally:
        os._exit(status)


def kill_trials(folder: Path, count: int, rng: random.Random) -> dict[str, int]:
    """Kill one of two ranks, at a named point or a random moment, then resume."""
    found = {"kills": 0, "at named points": 0, "at random moments": 0, "runs checked": 0}
    spec = synthetic_spec(steps=STEPS, shape=SHAPE)
    length = 0.05
    while found["kills"] < count:
        path = folder / f"kill-{found['kills']}.zarr"
        store = TrajectoryStore.create(path, spec, runs=RUNS, batch_size=BATCH)
        expected_runs(store)
        named = rng.random() < 0.5
        victim = rng.randrange(2)
        doom = (rng.choice(range(victim, store.batches, 2)), rng.choice(POINTS))
        start = time.perf_counter()
        dooms = [doom if named and rank == victim else (-1, "") for rank in range(2)]
        pids = [fork(partial(write_pending, store, rank, 2, dooms[rank])) for rank in range(2)]
        if not named:
            time.sleep(rng.uniform(0, length))
            os.kill(pids[victim], signal.SIGKILL)
        ends = [os.waitpid(pid, 0)[1] for pid in pids]
        if not named and os.WIFEXITED(ends[victim]):
            length = max(0.01, 0.9 * length)  # it was done before
            shutil.rmtree(path)
            continue
        if not named:
            length = max(length, 1.1 * (time.perf_counter() - start))
        assert os.WIFSIGNALED(ends[victim]), (doom, ends)
        assert ends[1 - victim] == 0
        found["kills"] += 1
        found["at named points" if named else "at random moments"] += 1
        found["runs checked"] += check_intact(store, complete=False)
        world_size = rng.choice((1, 2, 3))
        for rank in range(world_size):
            write_pending(store, rank, world_size)
        found["runs checked"] += check_intact(store, complete=True)
        shutil.rmtree(path)
    return found


def full_disk_trials(folder: Path, count: int, rng: random.Random) -> dict[str, int]:
    """Fill a small tmpfs at random moments, make room, and resume. Needs a mount namespace."""
    found = {"full disks": 0, "batches before": 0, "runs checked": 0}
    spec = synthetic_spec(steps=STEPS, shape=(1, 64, 64))
    while found["full disks"] < count:
        mount = folder / "disk"
        mount.mkdir(exist_ok=True)
        size = rng.randrange(200, 3000)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(mount)], check=True
        )
        try:
            store = TrajectoryStore.create(mount / "runs.zarr", spec, runs=RUNS, batch_size=BATCH)
            try:
                write_pending(store, 0, 1)
            except DiskFullError:
                found["full disks"] += 1
                found["batches before"] += len(store.committed_batches())
                check_intact(store, complete=False)
                subprocess.run(["mount", "-o", "remount,size=16m", str(mount)], check=True)
                write_pending(store, 0, 1)
            found["runs checked"] += check_intact(store, complete=True)
        finally:
            subprocess.run(["umount", str(mount)], check=True)
    return found


def bit_flip_trials(folder: Path, count: int, rng: random.Random) -> dict[str, int]:
    """Flip single bits of committed shards and markers: verify finds each, no reader returns it."""
    path = folder / "flips.zarr"
    store = synthetic_store(path, runs=RUNS, batch_size=BATCH, steps=STEPS, shape=SHAPE)
    expected = expected_runs(store)
    keys = [f"commits/{batch}.json" for batch in store.committed_batches()]
    markers = len(keys)
    for batch in store.committed_batches():
        keys += store.shard_keys(batch).values()
    found = {"flips": 0, "in markers": 0, "found": 0, "refused by readers": 0}
    while found["flips"] < count:
        number = rng.randrange(markers) if rng.random() < 0.2 else rng.randrange(len(keys))
        file = path / keys[number]
        position, bit = rng.randrange(file.stat().st_size), 1 << rng.randrange(8)
        _flip(file, position, bit)
        found["flips"] += 1
        found["in markers"] += number < markers
        problems = store.verify().problems
        assert problems, (keys[number], position, bit)
        found["found"] += 1
        try:
            dataset = open_runs(path, statuses=("complete", "failed"))
            for name, values in expected.items():
                np.testing.assert_array_equal(dataset[name].values, values)
        except DamagedStoreError:
            found["refused by readers"] += 1
        else:  # only what no reader uses may be passed over: the status for plain Zarr readers
            assert keys[number].startswith("status/"), keys[number]
        _flip(file, position, bit)
    assert store.verify().ok
    return found


def _flip(file: Path, position: int, bit: int) -> None:
    with file.open("r+b") as handle:
        handle.seek(position)
        value = handle.read(1)[0]
        handle.seek(position)
        handle.write(bytes([value ^ bit]))


def crowd_trials(folder: Path, count: int, rng: random.Random) -> dict[str, int]:
    """Four writers and two readers at once, while someone seals and opens again."""
    found = {"crowds": 0, "seals": 0, "reads": 0, "runs checked": 0}
    spec = synthetic_spec(steps=STEPS, shape=SHAPE)
    for trial in range(count):
        path = folder / f"crowd-{trial}.zarr"
        store = TrajectoryStore.create(path, spec, runs=RUNS, batch_size=BATCH, fsync=False)
        expected_runs(store)
        counts = folder / "counts"
        counts.write_text("")
        writers = [fork(partial(_insist, store, rank, 4)) for rank in range(4)]
        others = [fork(partial(_read_on, path, counts)) for _ in range(2)]
        others.append(fork(partial(_seal_on, path, counts)))
        assert [os.waitpid(pid, 0)[1] for pid in writers] == [0] * 4
        (folder / "counts.done").write_text("")
        assert [os.waitpid(pid, 0)[1] for pid in others] == [0] * 3
        (folder / "counts.done").unlink()
        found["runs checked"] += check_intact(store.seal(), complete=True)
        text = counts.read_text()
        found["crowds"] += 1
        found["seals"] += text.count("s")
        found["reads"] += text.count("r")
        shutil.rmtree(path)
    return found


def _insist(store: TrajectoryStore, rank: int, world_size: int) -> None:
    """Write one's batches; open the store again where someone sealed it."""
    while len(set(store.committed_batches()) & set(range(rank, store.batches, world_size))) < len(
        range(rank, store.batches, world_size)
    ):
        try:
            write_pending(store, rank, world_size)
        except SealedStoreError:
            store.reopen()
        except BatchTakenError:
            continue


def _read_on(path: Path, counts: Path) -> None:
    """Read whatever is committed, again and again, and compare it."""
    while not counts.with_suffix(".done").exists():
        store = TrajectoryStore.open(path)
        runs = store.index["run"]
        for name in ("eps", "sample"):
            values = expected_runs(store)[name]
            np.testing.assert_array_equal(store.read(name, threads=1), values[runs])
        with counts.open("a") as file:
            file.write("r")


def _seal_on(path: Path, counts: Path) -> None:
    """Try to seal, again and again."""
    while not counts.with_suffix(".done").exists():
        try:
            TrajectoryStore.open(path).seal()
            with counts.open("a") as file:
                file.write("s")
        except (IncompleteStoreError, FileNotFoundError):
            pass
        time.sleep(0.01)


TRIALS = {
    "kills": kill_trials,
    "full-disks": full_disk_trials,
    "bit-flips": bit_flip_trials,
    "crowds": crowd_trials,
}


def main() -> None:
    """Run one kind of trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=TRIALS)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rng = random.Random(arguments.seed)
        print(json.dumps(TRIALS[arguments.kind](Path(folder), arguments.count, rng)))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
