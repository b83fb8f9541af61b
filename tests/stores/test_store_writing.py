"""What a writer refuses, casts and computes."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_stores import TrajectoryStore, VariableSpec, open_runs
from asced_stores.backends.backend import TEMPORARY
from asced_stores.backends.local import LocalBackend
from asced_stores.errors import DamagedStoreError, DiskFullError, InputError
from asced_stores.testing import synthetic_batch, synthetic_spec, synthetic_store
from asced_stores.writing.not_finite import all_finite

SCORE = VariableSpec("score", (), (), "float64")


@pytest.fixture
def store() -> TrajectoryStore:
    spec = synthetic_spec(steps=3, shape=(1, 4, 4), extra=(SCORE,))
    return TrajectoryStore.create(f"memory://{uuid.uuid4()}", spec, runs=6, batch_size=4)


def write(store: TrajectoryStore, batch: int = 0, n: int = 4, **changes: Any) -> Any:
    arrays = synthetic_batch(store.spec, range(n))
    arrays |= changes.pop("arrays", {})
    scalars = {"score": np.zeros(n), **changes.pop("scalars", {})}
    with store.writer(0, 1) as writer:
        return writer.write_batch(batch, arrays, changes.pop("runs", None), scalars)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"batch": 2}, "batches 0 to 1"),
        ({"batch": -1}, "batches 0 to 1"),
        ({"n": 5}, "1 to 4"),
        ({"batch": 1, "n": 3}, "at most 2"),
        ({"arrays": {"nothing": np.zeros(4)}}, "unknown ones"),
        ({"arrays": {"eps": np.zeros((4, 3, 1, 4, 5))}}, "eps has shape"),
        ({"arrays": {"eps": np.zeros((3, 3, 1, 4, 4))}}, "same number"),
        ({"arrays": {"image": np.zeros((4, 4, 4, 1), np.float32)}}, "image is float32"),
        ({"arrays": {"eps": np.zeros((4, 3, 1, 4, 4), complex)}}, "eps is complex128"),
        ({"runs": [0, 1, 2, 2]}, "different numbers"),
        ({"runs": [0, 1, 2, -1]}, "from 0 on"),
        ({"scalars": {"status": [1, 1, 0, 1]}}, "neither 1"),
        ({"scalars": {"seed": [2**70] * 4}}, "seed"),
        ({"scalars": {"seed": [1.5] * 4}}, "seed"),
        ({"scalars": {"seed": [1, 2]}}, "seed must be 4"),
        ({"scalars": {"prompt": [b"bytes"] * 4}}, "4 strings"),
        ({"scalars": {"colour": [1] * 4}}, "no numbers by run"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(
    store: TrajectoryStore, changes: dict[str, Any], match: str
) -> None:
    before = sorted(store.backend.walk())
    with pytest.raises(InputError, match=match):
        write(store, **changes)
    assert sorted(store.backend.walk()) == before


def test_a_missing_number_by_run_is_named(store: TrajectoryStore) -> None:
    arrays = synthetic_batch(store.spec, range(4))
    with store.writer(0, 1) as writer, pytest.raises(InputError, match="'score' is missing"):
        writer.write_batch(0, arrays)


def test_numbers_by_run_come_back_exactly(store: TrajectoryStore) -> None:
    scores = [0.1, np.inf, -np.inf, np.nan]
    write(store, scalars={"score": scores, "seed": [1, -2, 2**63 - 1, 0], "prompt": list("aé\n<")})
    write(store, 1, 2, scalars={"prompt": "all the same", "guidance_scale": 7.5})
    for opened in (store, store.seal()):
        dataset = open_runs(opened)
        np.testing.assert_array_equal(dataset["score"].values, [*scores, 0, 0])
        assert dataset["seed"].values.tolist() == [1, -2, 2**63 - 1, 0, -1, -1]
        assert dataset["prompt"].values.tolist() == ["a", "é", "\n", "<", *["all the same"] * 2]
        assert dataset["guidance_scale"].values[-1] == 7.5


def test_float32_is_rounded_and_overflow_is_a_failed_run(store: TrajectoryStore) -> None:
    eps = np.linspace(-3, 3, 4 * 3 * 16, dtype=np.float32).reshape(4, 3, 1, 4, 4)
    eps[2, 1] = 1e6
    write(store, arrays={"eps": eps})
    dataset = open_runs(store, statuses=("complete", "failed"))
    assert dataset["status"].values.tolist() == [1, 1, 2, 1]
    np.testing.assert_array_equal(dataset["eps"].values[0], eps[0].astype(np.float16))


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_value_that_is_not_finite_is_seen(value: float, dtype: str) -> None:
    array = np.array([0, -0.0, 65504, -65504, 6e-8, -6e-8], dtype)
    assert all_finite(array)
    array[3] = value
    assert not all_finite(array)


def test_all_other_orders_in_memory_are_written_alike(store: TrajectoryStore) -> None:
    arrays = synthetic_batch(store.spec, range(4))
    swapped = {name: np.asfortranarray(values) for name, values in arrays.items()}
    swapped["eps"] = swapped["eps"].astype(">f2")
    write(store, arrays=swapped)
    np.testing.assert_array_equal(open_runs(store)["eps"].values, arrays["eps"])


def test_a_full_disk_is_named_and_nothing_of_the_batch_stays(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = synthetic_store(
        tmp_path / "runs.zarr", runs=8, batch_size=4, steps=3, shape=(1, 8, 8), batches=(0,)
    )
    real = os.writev

    def full(descriptor: int, views: Any) -> int:
        if sum(view.nbytes for view in views) > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, views)

    arrays = synthetic_batch(store.spec, range(4, 8))
    with monkeypatch.context() as patch, store.writer(0, 1) as writer:
        patch.setattr(os, "writev", full)
        with pytest.raises(DiskFullError, match="--resume"):
            writer.write_batch(1, arrays)
    assert store.committed_batches() == [0]
    assert not store.verify().leftovers
    with store.writer(0, 1) as writer:
        writer.write_batch(1, arrays)
    assert store.verify().ok


def test_links_that_leave_the_store_are_not_followed(tmp_path: Any) -> None:
    options: dict[str, Any] = {"runs": 8, "batch_size": 4, "steps": 3, "shape": (1, 8, 8)}
    store = synthetic_store(tmp_path / "runs.zarr", batches=(0,), **options)
    outside = tmp_path / "outside"
    shard = store.backend.root / "eps/c/0/0/0/0/0"  # type: ignore[attr-defined]
    shard.rename(outside)
    shard.symlink_to(outside)
    with pytest.raises(DamagedStoreError, match="is a link"):
        open_runs(store)["eps"].values  # noqa: B018
    assert not store.verify().ok
    folder = tmp_path / "folder"
    folder.mkdir()
    array = tmp_path / "runs.zarr/x0/c/1"
    array.symlink_to(folder)
    fresh = TrajectoryStore.open(tmp_path / "runs.zarr")
    with fresh.writer(0, 1) as writer, pytest.raises(DamagedStoreError, match="is a link"):
        writer.write_batch(1, synthetic_batch(store.spec, range(4, 8)))
    assert not list(folder.iterdir())
    assert fresh.committed_batches() == [0]


def test_a_store_may_itself_be_reached_through_a_link(tmp_path: Any) -> None:
    synthetic_store(tmp_path / "real.zarr", runs=4, batch_size=4, steps=3, shape=(1, 8, 8))
    (tmp_path / "link.zarr").symlink_to(tmp_path / "real.zarr")
    assert open_runs(tmp_path / "link.zarr")["eps"].values.shape == (4, 3, 1, 8, 8)


def test_sealing_removes_what_a_killed_sealing_left(tmp_path: Path) -> None:
    store = synthetic_store(tmp_path / "a.zarr", runs=4, batch_size=4, steps=3, shape=(1, 4, 4))
    left = tmp_path / "a.zarr" / TEMPORARY / "replace-0123"
    left.write_bytes(b"half of a file")
    store.seal()
    assert not left.exists()


def test_replacing_goes_on_when_a_sweeper_takes_the_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalBackend(tmp_path)
    write, swept = backend._write_temporary, []

    def taken_once(parts: Any, owner: str) -> Path:
        temporary = write(parts, owner)
        if not swept:
            swept.extend(backend.sweep("replace-"))
        return temporary

    monkeypatch.setattr(backend, "_write_temporary", taken_once)
    backend.replace("key", b"new")
    assert swept
    assert (tmp_path / "key").read_bytes() == b"new"
    assert backend.names(TEMPORARY) == []
