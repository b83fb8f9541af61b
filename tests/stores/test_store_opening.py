"""Opening: lazily, with one read where sealed, in flat memory; packs of markers."""

from __future__ import annotations

import pickle
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

from asced_stores import RunReader, TrajectoryStore, open_runs
from asced_stores.backends.object_storage import ObjectBackend
from asced_stores.errors import InputError
from asced_stores.format.compaction import compact, load_markers
from asced_stores.testing import synthetic_batch, synthetic_store

SMALL: dict[str, Any] = {"runs": 20, "batch_size": 2, "steps": 2, "shape": (1, 4, 4)}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count of the objects that are read whole, and of those opened in part."""
    counts: Counter[str] = Counter()
    read, reader = ObjectBackend.read, ObjectBackend.reader

    def counted_read(self: ObjectBackend, key: str, *, limit: int | None = None) -> bytes:
        counts[key.partition("/")[0] if "/" in key else key] += 1
        return read(self, key, limit=limit)

    def counted_reader(self: ObjectBackend, key: str) -> Any:
        counts[key.partition("/")[0]] += 1
        return reader(self, key)

    monkeypatch.setattr(ObjectBackend, "read", counted_read)
    monkeypatch.setattr(ObjectBackend, "reader", counted_reader)
    return counts


def test_nothing_is_read_before_it_is_asked_for(reads: Counter[str]) -> None:
    store = synthetic_store(f"memory://{uuid.uuid4()}", **SMALL)
    reads.clear()

    def refuse(graph: Any, keys: Any, **options: Any) -> Any:
        raise AssertionError("something computes too early")

    with dask.config.set(scheduler=refuse):
        dataset = open_runs(store)
        part = dataset["eps"].isel(step=0).mean("run")
        assert not {"eps", "x0", "sample"} & set(reads)
        with pytest.raises(AssertionError, match="too early"):
            part.compute()


def test_a_run_costs_one_shard(reads: Counter[str]) -> None:
    dataset = open_runs(synthetic_store(f"memory://{uuid.uuid4()}", **SMALL))
    reads.clear()
    dataset["eps"].isel(run=7).compute()
    assert reads == {"eps": 1}


def test_a_sealed_store_opens_with_its_root_and_one_index(reads: Counter[str]) -> None:
    path = f"memory://{uuid.uuid4()}"
    store = synthetic_store(path, seal=True, **SMALL)
    reads.clear()
    assert open_runs(path).sizes["run"] == 20
    assert reads == {"zarr.json": 1, "commits": 1}
    assert store.sealed is not None


def test_an_index_that_swells_or_names_strangers_is_refused() -> None:
    import json

    from asced_stores.errors import DamagedStoreError
    from asced_stores.format.archives import pack_arrays, unpack_arrays
    from asced_stores.format.checksums import crc32c

    path = f"memory://{uuid.uuid4()}"
    store = synthetic_store(path, seal=True, **SMALL)
    assert store.sealed is not None
    name = f"commits/{store.sealed['index']}"
    good = unpack_arrays(store.backend.read(name), limit=1 << 20)
    nine = {**good, "batch": np.full(20, 10**9)}
    bomb = {column: np.zeros(10**6, values.dtype) for column, values in good.items()}
    short = {column: values for column, values in good.items() if column != "seed"}
    wide = {**good, "seed": good["seed"].astype("float64")}
    for bad, runs in ((nine, 20), (bomb, 10**6), (short, 20), (wide, 20), (good, 21)):
        data = pack_arrays(bad)
        store.backend.replace(name, data)
        root = json.loads(store.backend.read("zarr.json"))
        root["attributes"]["asced"]["sealed"] |= {"crc32c": crc32c(data), "runs": runs}
        store.backend.replace("zarr.json", json.dumps(root).encode())
        with pytest.raises(DamagedStoreError, match="asced seal"):
            open_runs(path)


def test_packs_spare_reading_markers_and_markers_stay_the_truth(reads: Counter[str]) -> None:
    store = synthetic_store(f"memory://{uuid.uuid4()}", batches=range(8), **SMALL)
    before = open_runs(store).load()
    assert compact(store) == 8
    assert compact(store) == 0
    reads.clear()
    assert open_runs(store).load().identical(before)
    assert reads["commits"] == 1
    store.verify(drop=True)
    store.backend.delete("commits/3.json")
    assert [marker.batch for marker in load_markers(store)] == [0, 1, 2, 4, 5, 6, 7]
    for name in store.backend.names("commits"):
        if name.startswith("pack-"):
            store.backend.replace(f"commits/{name}", b'{"markers": {"0": "nonsense"}}')
    assert len(load_markers(store)) == 7  # a damaged pack is passed over


def test_dropping_forgets_the_packs() -> None:
    store = synthetic_store(f"memory://{uuid.uuid4()}", **SMALL)
    compact(store)
    store.backend.delete(store.shard_keys(4)["eps"])
    assert list(store.verify(drop=True).dropped) == [4]
    assert not [name for name in store.backend.names("commits") if name.startswith("pack-")]
    assert store.committed_batches() == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_lazy_arrays_travel_to_other_processes(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    synthetic_store("runs.zarr", **SMALL)
    lazy = pickle.dumps(open_runs("runs.zarr")["eps"].data)
    monkeypatch.chdir("/")
    assert pickle.loads(lazy)[3].compute().shape == (2, 1, 4, 4)


def test_reader_and_read_refuse_what_is_not_there() -> None:
    store = synthetic_store(f"memory://{uuid.uuid4()}", **SMALL)
    with pytest.raises(InputError, match="nothing"):
        RunReader(store, ("nothing",))
    with pytest.raises(InputError, match="at least 1"):
        RunReader(store, threads=0)
    with pytest.raises(InputError, match="nothing"):
        store.read("nothing")
    with pytest.raises(InputError, match="step is 2"):
        store.read("eps", steps=2)
    with pytest.raises(InputError, match="statuses"):
        open_runs(store, statuses=("absent",))
    expected = synthetic_batch(store.spec, range(20))["eps"]
    np.testing.assert_array_equal(store.read("eps", steps=-1), expected[:, -1])
    np.testing.assert_array_equal(
        store.read("eps", runs=[3, 9], steps=slice(1, 2)), expected[[3, 9], 1:2]
    )
    assert store.read("eps", runs=[]).shape == (0, 2, 1, 4, 4)


def test_a_reader_left_early_reads_no_further(reads: Counter[str]) -> None:
    store = synthetic_store(f"memory://{uuid.uuid4()}", **SMALL)
    reads.clear()
    for _ in RunReader(store, ("eps",), threads=1).batches():
        break
    assert reads["eps"] <= 3


def test_the_ground_floor_stays_light() -> None:
    code = (
        "import sys, asced_stores; from asced_stores import TrajectoryStore, TrajectorySpec; "
        "heavy = {'torch', 'xarray', 'dask', 'zarr', 'pandas', 'pyarrow', 'obstore'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_ten_thousand_sealed_batches_open_in_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util
    import time

    file = Path(__file__).parents[2] / "benchmarks/bench_stores.py"
    monkeypatch.syspath_prepend(file.parent)
    spec = importlib.util.spec_from_file_location("bench_stores", file)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    store = bench.make_many(tmp_path / "many.zarr", 10_000, sealed=True)
    open_runs(store)
    start = time.perf_counter()
    dataset = open_runs(tmp_path / "many.zarr")
    assert time.perf_counter() - start < 2
    assert dataset["eps"].data.numblocks[0] == dataset.sizes["run"] == 10_000


@pytest.mark.slow
@pytest.mark.parametrize("task", ["write", "read"])
def test_memory_is_flat_as_runs_grow(tmp_path: Path, task: str) -> None:
    file = Path(__file__).parents[2] / "benchmarks/bench_stores.py"
    peaks = []
    for runs in (256, 1024):
        for step in dict.fromkeys(("write", task)):
            command = [sys.executable, str(file), "--memory-task", step]
            command += [str(tmp_path / "memory.zarr"), str(runs)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout))
    batch = 32 * 25 * 4 * 64 * 64 * 2 * 2 / 2**20
    assert peaks[0] < 100 + 4 * batch
    assert peaks[1] < peaks[0] + batch  # eight batches, then thirty-two


def test_opening_another_zarr_or_a_file(tmp_path: Path) -> None:
    import zarr

    zarr.create_array(tmp_path / "array.zarr", shape=(3,), dtype="f4")
    (tmp_path / "file").write_text("text")
    for name in ("array.zarr", "file"):
        with pytest.raises(InputError, match=r"trajectory store|Zarr"):
            TrajectoryStore.open(tmp_path / name)
    with pytest.raises(InputError, match="another"):
        synthetic_store(tmp_path / "file", **SMALL)
