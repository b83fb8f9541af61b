"""How fast stores write and read, as ratios against ``np.save`` and fsync of the same bytes.

Every ratio is the median of interleaved pairs (raw, ours) with a bootstrap interval of 95 %; CPU
seconds stand beside it. Run ``python benchmarks/bench_stores.py`` (or ``--quick``, ``--json``).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pairs import Work, measure, timed

SHAPES = {
    "1x32x32": ((1, 32, 32), 64),
    "4x64x64": ((4, 64, 64), 32),
    "3x256x256": ((3, 256, 256), 8),
}
STEPS = 25


def forget(file: Path) -> None:
    """Have the system drop a file from its cache, so that the next read goes to the disk."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def row(
    name: str, prepare: Callable[[int], tuple[Work, Work]], nbytes: int, pairs: int
) -> dict[str, Any]:
    """Raw time by ours (1 is as fast as raw), and both rates."""
    gc.collect()
    gc.freeze()  # so that collecting before each measurement leaves the processor's cache as it is
    found = measure(prepare, pairs).row(name, faster=True)
    gc.unfreeze()
    rates = {
        key: round(nbytes / found[of] / 1e6, 1)
        for key, of in (("raw_mb_s", "plain_s"), ("mb_s", "s"))
    }
    return {**found, **rates}


def make_spec(shape: tuple[int, ...]) -> Any:
    """Two float16 variables, which are nearly all of a real store."""
    from asced_stores.testing import synthetic_spec

    return synthetic_spec(steps=STEPS, shape=shape, fields=("eps", "x0"))


def bench_writing(folder: Path, name: str, pairs: int, **options: Any) -> dict[str, Any]:
    """One batch a pair: shards, checksums, fsync and marker against np.save and fsync."""
    from asced_stores import TrajectoryStore

    shape, batch_size = SHAPES[name]
    rng = np.random.default_rng(0)
    arrays = {
        key: rng.standard_normal((batch_size, STEPS, *shape), np.float32).astype(np.float16)
        for key in ("eps", "x0")
    }
    path = folder / "write.zarr"
    store = TrajectoryStore.create(
        path, make_spec(shape), runs=None, batch_size=batch_size, overwrite=True, **options
    )

    def raw(pair: int) -> None:
        for key, array in arrays.items():
            with (folder / f"raw-{key}-{pair}.npy").open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())

    with store.writer(0, 1) as writer:

        def prepare(pair: int) -> tuple[Work, Work]:
            """Remove what both wrote in earlier pairs, so that they meet the same memory."""
            for old in folder.glob(f"raw-*-{pair - 1}.npy"):
                old.unlink()
            for key in store.shard_keys(pair - 1).values() if pair else ():
                store.backend.delete(key)
            return partial(raw, pair), partial(writer.write_batch, pair, arrays)

        nbytes = sum(array.nbytes for array in arrays.values())
        label = f"write a batch of {batch_size} x {name} x {STEPS}"
        result = row(label, prepare, nbytes, pairs)
    for old in folder.glob("raw-*.npy"):
        old.unlink()
    shutil.rmtree(path)
    return result


def bench_reading(folder: Path, name: str, pairs: int, **options: Any) -> list[dict[str, Any]]:
    """One run, and one step over all runs, against reading as many bytes in one piece."""
    from asced_stores import TrajectoryStore, open_runs

    shape, batch_size = SHAPES[name]
    batches = 8
    rng = np.random.default_rng(0)
    path = folder / "read.zarr"
    store = TrajectoryStore.create(
        path,
        make_spec(shape),
        runs=batches * batch_size,
        batch_size=batch_size,
        overwrite=True,
        fsync=False,
        **options,
    )
    batch = rng.standard_normal((batch_size, STEPS, *shape), np.float32).astype(np.float16)
    with store.writer(0, 1) as writer:
        for number in range(batches):
            writer.write_batch(number, {"eps": batch, "x0": batch})
    plain = folder / "read.npy"
    np.save(plain, np.concatenate([batch] * batches))
    store = store.seal()
    lazy = open_runs(store)["eps"].data
    runs = batches * batch_size
    run_bytes, step_bytes = batch[0].nbytes, batch[0, 0].nbytes * runs

    def raw(start: int, nbytes: int) -> np.ndarray[Any, Any]:
        return np.fromfile(plain, np.float16, nbytes // 2, offset=128 + start)

    def raw_run(pair: int) -> Any:
        return raw(pair * 7 % runs * run_bytes, run_bytes)

    def raw_step(pair: int) -> Any:
        return raw(0, step_bytes)

    def dask_run(pair: int) -> Any:
        return lazy[pair * 7 % runs].compute(scheduler="synchronous")

    def dask_step(pair: int) -> Any:
        return lazy[:, pair % STEPS].compute(scheduler="threads", num_workers=2)

    def one_run(pair: int) -> Any:
        return store.read("eps", runs=[pair * 7 % runs])

    def one_step(pair: int) -> Any:
        return store.read("eps", steps=pair % STEPS)

    Way = Callable[[int], Any]

    def warm(raw: Way, ours: Way) -> Callable[[int], tuple[Work, Work]]:
        return lambda pair: (partial(raw, pair), partial(ours, pair))

    def cold(raw: Way, ours: Way) -> Callable[[int], tuple[Work, Work]]:
        def prepare(pair: int) -> tuple[Work, Work]:
            forget(plain)
            for file in path.glob("eps/c/**/0"):
                if file.is_file():
                    forget(file)
            return partial(raw, pair), partial(ours, pair)

        return prepare

    step = f"one step of {runs} runs, {name}"  # what was just written lies in the cache
    found = [
        row(f"read one run, {name}", warm(raw_run, one_run), run_bytes, pairs),
        row(f"read {step}", warm(raw_step, one_step), step_bytes, pairs),
        row(f"read one run by Dask, {name}", warm(raw_run, dask_run), run_bytes, pairs),
        row(f"read by Dask {step}", warm(raw_step, dask_step), step_bytes, pairs),
        row(f"read one run from disk, {name}", cold(raw_run, one_run), run_bytes, pairs),
        row(f"read from disk {step}", cold(raw_step, one_step), step_bytes, pairs),
    ]
    shutil.rmtree(path)
    plain.unlink()
    return found


def make_many(path: Path, batches: int, *, sealed: bool) -> Any:
    """Write a store of many tiny batches; one is written, the others are copies of its files."""
    from asced_stores.format.checksums import crc32c
    from asced_stores.format.compaction import PACK_EVERY, compact
    from asced_stores.format.markers import Marker, ShardRecord
    from asced_stores.testing import synthetic_store

    store = synthetic_store(
        path, runs=batches, batch_size=1, steps=2, shape=(1, 4, 4), fields=("eps",), batches=(0,)
    )
    first = store.marker(0)
    keys = store.shard_keys(0)
    contents = {name: store.backend.read(key) for name, key in keys.items()}
    for batch in range(1, batches):
        for name, key in store.shard_keys(batch).items():
            store.backend.create(key, [contents[name]])
        marker = Marker(
            batch=batch,
            fingerprint=first.fingerprint,
            scalars={**first.scalars, "run": first.scalars["run"] + batch},
            shards={n: ShardRecord(len(c), crc32c(c)) for n, c in contents.items()},
            token=str(batch),
        )
        store.backend.create(f"commits/{batch}.json", [marker.to_bytes()])
        if batch % PACK_EVERY == 0:
            compact(store)
    return store.seal() if sealed else store


def bench_opening(folder: Path, counts: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Seconds to open stores of many batches, median of nine."""
    from asced_stores import open_runs

    for count in counts:
        store = make_many(folder / "many.zarr", count, sealed=False)
        for state in ("unsealed", "sealed"):
            if state == "sealed":
                store.seal()
            seconds = [timed(lambda: open_runs(folder / "many.zarr"))[0] for _ in range(9)]
            median = round(float(np.median(seconds)), 4)
            yield {"row": f"open {count} batches, {state}", "s": median}
        shutil.rmtree(folder / "many.zarr")


def peak_of(task: str, path: Path, runs: int) -> float:
    """Peak resident memory of another process, in MB."""
    command = [sys.executable, __file__, "--memory-task", task, str(path), str(runs)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.splitlines()[-1])


def memory_task(task: str, path: Path, runs: int) -> None:
    """Write or read so many runs of 4x64x64, then print the peak."""
    from asced_stores import RunReader, TrajectoryStore

    shape, batch_size = SHAPES["4x64x64"]
    if task == "write":
        batch = np.ones((batch_size, STEPS, *shape), np.float16)
        store = TrajectoryStore.create(
            path, make_spec(shape), runs=runs, batch_size=batch_size, overwrite=True, fsync=False
        )
        with store.writer(0, 1) as writer:
            for number in writer.pending_batches():
                writer.write_batch(number, {"eps": batch, "x0": batch})
    else:
        total = 0.0
        for _, _, arrays in RunReader(path, threads=2).batches():
            total += float(arrays["eps"][0, 0, 0, 0, 0])
    status = Path("/proc/self/status").read_text()  # ru_maxrss remembers the parent's
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def bench_memory(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Peak memory of writer and reader, for so many runs and four times as many."""
    rows = []
    batch = 32 * STEPS * 4 * 64 * 64 * 2 * 2 / 1e6
    for task in ("write", "read"):
        peaks = []
        for count in (runs, 4 * runs):
            if task == "read":
                peak_of("write", folder / "memory.zarr", count)
            peaks.append(peak_of(task, folder / "memory.zarr", count))
        rows.append(
            {
                "row": f"peak memory to {task} {runs} and {4 * runs} runs of 4x64x64",
                "mb": [round(peak, 1) for peak in peaks],
                "batch_mb": round(batch, 1),
            }
        )
    shutil.rmtree(folder / "memory.zarr")
    return rows


def bench_layouts(folder: Path, pairs: int) -> Iterator[dict[str, Any]]:
    """Inner chunks of several sizes, by shape: write, one run, one step."""
    for name in SHAPES:
        for chunk_bytes in (1 << 16, 1 << 18, 1 << 19, 1 << 20, 1 << 22):
            write = bench_writing(folder, name, pairs, chunk_bytes=chunk_bytes)
            *_, run, step = bench_reading(folder, name, pairs, chunk_bytes=chunk_bytes)
            yield {
                "row": f"chunks up to {chunk_bytes >> 10} KB, {name}",
                "write": write["ratio"],
                "run": run["ratio"],
                "step": step["ratio"],
                "mb_s": [write["mb_s"], run["mb_s"], step["mb_s"]],
                "cpu_s": [write["cpu_s"], run["cpu_s"], step["cpu_s"]],
            }


def main() -> None:
    """Run the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five pairs, no layouts")
    parser.add_argument("--layouts", action="store_true", help="only the choice of inner chunks")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, help="only these, no other rows")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to be measured")
    parser.add_argument("--memory-task", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_task:
        task, path, runs = arguments.memory_task
        memory_task(task, Path(path), int(runs))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        found = rows(
            Path(name),
            quick=arguments.quick,
            layouts=arguments.layouts,
            shapes=arguments.shapes,
        )
        for row in found:
            print(json.dumps(row) if arguments.json else _line(row), flush=True)


def rows(
    folder: Path,
    *,
    quick: bool = False,
    layouts: bool = False,
    shapes: list[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield row by row."""
    pairs = 5 if quick else 30
    if layouts:
        yield from bench_layouts(folder, pairs)
        return
    for shape in shapes or reversed(SHAPES):
        yield bench_writing(folder, shape, pairs)
        yield from bench_reading(folder, shape, pairs)
    if shapes:
        return
    yield from bench_memory(folder, 128 if quick else 256)
    yield from bench_opening(folder, (100, 1000) if quick else (100, 1000, 10000))


def _line(row: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in row.items() if key != "row")
    return f"stores | {row['row']:<44} | {facts}"


if __name__ == "__main__":
    main()
