"""What a store must do on every backend: a test class that the tests of a new backend subclass.

A subclass gives one fixture, ``path``, that names a fresh backend, and if need be another,
``storage_options``. See ``tests/stores/test_store_contract.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import xarray
import zarr

from asced_stores import RunReader, TrajectoryStore, VariableSpec, open_runs
from asced_stores.backends.opening import open_backend
from asced_stores.copying.merging import merge
from asced_stores.copying.selecting import repack, select_runs
from asced_stores.errors import (
    BatchTakenError,
    DamagedBatchError,
    DamagedStoreError,
    IncompleteStoreError,
    InputError,
    NewerFormatError,
    NotATrajectoryStoreError,
    SealedStoreError,
    StoreExistsError,
    StoreNotFoundError,
)
from asced_stores.testing.backend_contract import BackendContract, flip
from asced_stores.testing.synthetic import synthetic_batch, synthetic_spec, synthetic_store

MASK = VariableSpec("mask", ("y", "x"), (16, 16), "uint8")
SCORE = VariableSpec("score", (), (), "float64")
SMALL: Mapping[str, Any] = {"runs": 10, "steps": 4, "batch_size": 4, "shape": (1, 8, 8)}


class StoreContract(BackendContract):
    """The contract; needs a fixture ``path``."""

    @pytest.fixture
    def small(self, path: str, storage_options: Any) -> TrajectoryStore:
        """Ten runs in three batches, the last of them short."""
        return synthetic_store(path, storage_options=storage_options, **SMALL)

    # --- backends ------------------------------------------------------------------------------

    def test_zarr_xarray_and_open_runs_read_what_was_written(
        self, path: str, storage_options: Any
    ) -> None:
        store = synthetic_store(
            path,
            storage_options=storage_options,
            runs=11,
            batch_size=4,
            steps=6,
            checkpoints=(2, 4),
            extra=(MASK, SCORE),
        )
        expected = synthetic_batch(store.spec, range(11))
        ours = open_runs(store)
        group = zarr.open_group(store.backend.zarr_store(), mode="r")
        plain = xarray.open_zarr(store.backend.zarr_store(), chunks=None)
        for name, values in expected.items():
            np.testing.assert_array_equal(ours[name].values, values, strict=True)
            np.testing.assert_array_equal(np.asarray(group[name]), values)
            np.testing.assert_array_equal(plain[name].values, values)
            assert ours[name].dims == plain[name].dims
        np.testing.assert_array_equal(plain["log_snr"].values, store.spec.log_snr)
        assert dict(group.attrs)["format"] == ours.attrs["format"] == "asced-trajectories"
        assert ours.chunksizes["run"] == (4, 4, 3)
        assert ours["seed"].values.tolist() == list(range(11))
        assert ours["score"].dtype == np.float64

    def test_any_part_can_be_asked_for(self, small: TrajectoryStore) -> None:
        expected = synthetic_batch(small.spec, range(10))["x0"]
        lazy = open_runs(small)["x0"].data
        for key in np.index_exp[3], np.index_exp[2:9:3], np.index_exp[:, 1], np.index_exp[-1, -1]:
            np.testing.assert_array_equal(lazy[key].compute(), expected[key])
        np.testing.assert_array_equal(lazy[5, 1:3, 0, 2:4].compute(), expected[5, 1:3, 0, 2:4])
        np.testing.assert_array_equal(lazy[[1, 7], ::2].compute(), expected[[1, 7], ::2])

    def test_reader_streams_whole_batches(self, small: TrajectoryStore) -> None:
        expected = synthetic_batch(small.spec, range(10))
        seen = []
        for batch, runs, arrays in RunReader(small, ("eps", "sample")).batches():
            seen.append(batch)
            np.testing.assert_array_equal(arrays["eps"], expected["eps"][runs])
            np.testing.assert_array_equal(arrays["sample"], expected["sample"][runs])
        assert seen == [0, 1, 2]

    def test_selected_runs_only(self, small: TrajectoryStore) -> None:
        assert open_runs(small, select=[8, 1])["run"].values.tolist() == [1, 8]
        assert open_runs(small, select=lambda index: index["seed"] > 7).sizes["run"] == 2
        with pytest.raises(ValueError, match="run 99"):
            open_runs(small, select=[1, 99])

    def test_failed_runs_are_kept_and_not_counted_as_normal(
        self, path: str, storage_options: Any
    ) -> None:
        store = synthetic_store(path, storage_options=storage_options, failed=(1, 6), **SMALL)
        assert open_runs(store).sizes["run"] == 8
        failed = open_runs(store, statuses=("failed",))
        assert failed["run"].values.tolist() == [1, 6]
        assert np.isnan(failed["sample"].values).all()
        assert store.seal().verify().runs == 10
        assert open_runs(path, storage_options=storage_options).sizes["run"] == 8

    # --- commits --------------------------------------------------------------------------------

    def test_a_batch_without_marker_is_not_there(self, small: TrajectoryStore) -> None:
        small.backend.delete("commits/1.json")
        assert small.committed_batches() == [0, 2]
        assert open_runs(small)["run"].values.tolist() == [0, 1, 2, 3, 8, 9]
        report = small.verify()
        assert report.ok
        assert list(report.missing) == [1]
        assert len(report.leftovers) == len(small.shard_keys(1))

    def test_resume_redoes_what_is_missing_and_sweeps(self, small: TrajectoryStore) -> None:
        backend = small.backend
        kept = backend.read("commits/0.json"), backend.stamp(small.shard_keys(0)["eps"])
        backend.delete("commits/1.json")
        backend.delete(small.shard_keys(1)["x0"])
        with small.writer(0, 1) as writer:
            assert [_write(writer, batch) for batch in writer.pending_batches()] == [1]
        assert (backend.read("commits/0.json"), backend.stamp(small.shard_keys(0)["eps"])) == kept
        report = small.verify()
        assert report.ok
        assert not report.leftovers
        assert open_runs(small).sizes["run"] == 10

    def test_a_committed_batch_cannot_be_written_again(self, small: TrajectoryStore) -> None:
        with small.writer(0, 1) as writer, pytest.raises(BatchTakenError):
            _write(writer, 0)
        assert small.verify().ok

    def test_a_lingering_writer_cannot_overwrite_what_took_its_place(
        self, path: str, storage_options: Any
    ) -> None:
        store = TrajectoryStore.create(
            path,
            synthetic_spec(steps=4, shape=(1, 8, 8)),
            runs=4,
            batch_size=4,
            storage_options=storage_options,
        )
        lingering, fresh = store.writer(0, 1), store.writer(0, 1)
        commit = lingering._commit

        def late(*arguments: Any) -> Any:
            for batch in fresh.pending_batches():  # takes the shards away, and writes its own
                _write(fresh, batch, seed=50)
            return commit(*arguments)

        lingering._commit = late  # type: ignore[method-assign,assignment]
        with lingering, fresh, pytest.raises(BatchTakenError):
            _write(lingering, 0, seed=0)
        assert store.verify().ok
        expected = synthetic_batch(store.spec, range(4), seed=50)
        np.testing.assert_array_equal(open_runs(store)["eps"].values, expected["eps"])

    def test_ranks_share_the_batches(self, path: str, storage_options: Any) -> None:
        store = TrajectoryStore.create(
            path,
            synthetic_spec(steps=4, shape=(1, 8, 8)),
            runs=20,
            batch_size=4,
            storage_options=storage_options,
        )
        with store.writer(1, 2) as second:
            assert list(second.pending_batches([4, 3, 0])) == [3]
            assert [_write(second, batch) for batch in second.pending_batches()] == [1, 3]
        with store.writer(0, 3) as first:  # restarted with another world size
            assert [_write(first, batch) for batch in first.pending_batches()] == [0]
        with store.writer(0, 1) as last:
            assert [_write(last, batch) for batch in last.pending_batches()] == [2, 4]
        assert (
            open_runs(store)["rank"].values.tolist()
            == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4 + [0] * 4
        )

    # --- sealing --------------------------------------------------------------------------------

    def test_an_unplanned_store_is_cut_by_the_seal(self, path: str, storage_options: Any) -> None:
        store = synthetic_store(path, storage_options=storage_options, planned=None, **SMALL)
        before = open_runs(store).load()
        sealed = store.seal()
        plain = xarray.open_zarr(sealed.backend.zarr_store(), chunks=None)
        assert plain.sizes["run"] == 10
        assert (plain["status"] == 1).all()
        np.testing.assert_array_equal(plain["seed"].values, np.arange(10))
        xarray.testing.assert_identical(
            open_runs(path, storage_options=storage_options).load(), before
        )
        assert sealed.verify().ok

    def test_a_writer_after_the_seal_is_told_and_its_data_kept(
        self, path: str, storage_options: Any
    ) -> None:
        store = synthetic_store(path, storage_options=storage_options, planned=None, **SMALL)
        late = store.writer(0, 1)
        store.seal()
        with late, pytest.raises(SealedStoreError, match="reopen"):
            _write(late, 3, runs=range(12, 16))
        assert open_runs(path, storage_options=storage_options).sizes["run"] == 10
        problems = store.verify().problems
        assert [problem.key for problem in problems] == ["commits/3.json"]
        opened = store.reopen()
        assert open_runs(opened).sizes["run"] == 14
        assert opened.verify().ok

    def test_gaps_are_refused_unless_allowed(self, small: TrajectoryStore) -> None:
        small.backend.delete("commits/1.json")
        with pytest.raises(IncompleteStoreError, match=r"batches \[1\]"):
            small.seal()
        with small.writer(0, 1) as writer:
            assert next(writer.pending_batches()) == 1  # the refusal left nothing behind
        sealed = small.seal(allow_gaps=True)
        assert open_runs(sealed)["run"].values.tolist() == [0, 1, 2, 3, 8, 9]
        plain = xarray.open_zarr(sealed.backend.zarr_store(), chunks=None)
        assert plain["status"].values.tolist() == [1] * 4 + [0] * 4 + [1] * 2

    # --- damage ---------------------------------------------------------------------------------

    def test_damage_is_found_never_returned_and_can_be_dropped(
        self, small: TrajectoryStore
    ) -> None:
        flip(small.backend, small.shard_keys(1)["eps"], 40)
        report = small.verify()
        assert [problem.batch for problem in report.problems] == [1]
        with pytest.raises(DamagedBatchError, match="eps/c/1"):
            open_runs(small)["eps"].compute()
        assert list(small.verify(drop=True).dropped) == [1]
        with small.writer(0, 1) as writer:
            assert [_write(writer, batch) for batch in writer.pending_batches()] == [1]
        assert small.verify().ok

    def test_a_damaged_marker_is_found(self, small: TrajectoryStore) -> None:
        data = small.backend.read("commits/2.json")
        for broken in (data[:-20], data.replace(b'"seed":[8', b'"seed":[9'), b"{", b""):
            small.backend.replace("commits/2.json", broken)
            assert [problem.batch for problem in small.verify().problems] == [2]
            with pytest.raises(DamagedBatchError, match=r"commits/2\.json"):
                open_runs(small)

    def test_a_marker_for_shards_that_do_not_exist(self, small: TrajectoryStore) -> None:
        small.backend.delete(small.shard_keys(1)["x0"])
        assert "missing" in str(small.verify().problems[0])
        with pytest.raises(DamagedBatchError, match="missing"):
            open_runs(small)["x0"].compute()

    def test_a_damaged_index_is_found_and_rebuilt(self, small: TrajectoryStore) -> None:
        sealed = small.seal()
        assert sealed.sealed is not None
        flip(small.backend, f"commits/{sealed.sealed['index']}", 30)
        assert not sealed.verify().ok
        with pytest.raises(DamagedStoreError, match="asced seal"):
            open_runs(sealed)
        assert sealed.seal().verify().ok

    def test_another_kind_or_version_is_a_typed_error(
        self, path: str, storage_options: Any, small: TrajectoryStore
    ) -> None:
        root = small.backend.read("zarr.json")
        cases: list[tuple[bytes, type[Exception]]] = [
            (root.replace(b'"format_version": 1', b'"format_version": 2'), NewerFormatError),
            (root.replace(b"asced-trajectories", b"something-different"), NotATrajectoryStoreError),
            (root[: len(root) // 2], DamagedStoreError),
            (root.replace(b'"batch_size": 4', b'"batch_size": -4'), DamagedStoreError),
            (root.replace(b'"capacity": 10', b'"capacity": 1' + b"0" * 40), DamagedStoreError),
            (b"[" * 200_000, DamagedStoreError),
        ]
        for data, error in cases:
            small.backend.replace("zarr.json", data)
            with pytest.raises(error):
                TrajectoryStore.open(path, storage_options=storage_options)

    def test_making_a_store_where_something_lies(
        self, path: str, storage_options: Any, small: TrajectoryStore
    ) -> None:
        with pytest.raises(StoreExistsError, match="--resume"):
            synthetic_store(path, storage_options=storage_options, **SMALL)
        again = synthetic_store(
            path, storage_options=storage_options, overwrite=True, **{**SMALL, "runs": 4}
        )
        assert open_runs(again).sizes["run"] == 4

    def test_a_stranger_is_never_replaced(self, path: str, storage_options: Any) -> None:
        backend = open_backend(path, storage_options=storage_options)
        backend.replace("thesis.txt", b"all of it")
        for overwrite in (False, True):
            with pytest.raises(StoreExistsError):
                synthetic_store(path, storage_options=storage_options, overwrite=overwrite, **SMALL)
        assert backend.read("thesis.txt") == b"all of it"
        with pytest.raises(NotATrajectoryStoreError):
            TrajectoryStore.open(path, storage_options=storage_options)

    def test_no_store(self, path: str, storage_options: Any) -> None:
        with pytest.raises(StoreNotFoundError):
            open_runs(path, storage_options=storage_options)

    # --- copies ---------------------------------------------------------------------------------

    def test_select_merge_and_repack(self, path: str, storage_options: Any) -> None:
        options = {"storage_options": storage_options}
        first = synthetic_store(f"{path}-1", **options, **SMALL)
        second = synthetic_store(f"{path}-2", seed=100, failed=(2,), **options, **SMALL)
        both = merge([first, second], f"{path}-both", **options)
        assert both.verify().ok
        everything = open_runs(both, statuses=("complete", "failed"))
        assert sorted(everything["seed"].values) == [*range(10), *range(100, 110)]
        assert everything["run"].values.tolist() == list(range(20))
        expected = synthetic_batch(first.spec, range(10), seed=0)["eps"]
        mine = everything["seed"].values < 100
        np.testing.assert_array_equal(everything["eps"].values[mine], expected)

        some = select_runs(both, f"{path}-some", [3, 17, 18], **options)
        chosen = everything.isel(run=[3, 17, 18])
        np.testing.assert_array_equal(
            open_runs(some, statuses=("complete", "failed"))["x0"].values, chosen["x0"].values
        )
        wide = repack(both, f"{path}-wide", dtype="float32", batch_size=7, **options)
        assert wide.verify().ok
        again = open_runs(wide, statuses=("complete", "failed"))
        assert again["eps"].dtype == np.float32
        np.testing.assert_array_equal(again["eps"].values, everything["eps"].values)
        assert again["status"].values.tolist() == everything["status"].values.tolist()
        with pytest.raises(ValueError, match="dtype"):
            merge([first, wide], f"{path}-never", **options)

    def test_a_copy_leaves_its_source_alone(self, path: str, storage_options: Any) -> None:
        options = {"storage_options": storage_options}
        store = synthetic_store(path, **options, **SMALL)
        for out in (path, f"{path}/"):
            for overwrite in (False, True):
                with pytest.raises(InputError, match="is the store that is read"):
                    select_runs(store, out, [1], overwrite=overwrite, **options)
                with pytest.raises(InputError, match="is the store that is read"):
                    repack(store, out, dtype="float32", overwrite=overwrite, **options)
                with pytest.raises(InputError, match="is the store that is read"):
                    merge([store], out, overwrite=overwrite, **options)
        with pytest.raises(InputError, match="is the store that is read"):
            repack(store, path, resume=True, **options)
        assert store.reload().verify().ok
        assert open_runs(store).sizes["run"] == SMALL["runs"]


def _write(writer: Any, batch: int, runs: Any = None, seed: int = 0) -> int:
    store = writer.store
    if runs is None:
        first = batch * store.batch_size
        runs = range(first, min(first + store.batch_size, store.planned_runs))
    arrays = synthetic_batch(store.spec, runs, seed=seed)
    scalars = {"seed": seed + np.asarray(runs)}
    scalars |= {v.name: np.zeros(len(runs)) for v in store.spec.scalars}
    writer.write_batch(batch, arrays, runs, scalars)
    return batch
