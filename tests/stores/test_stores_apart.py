"""What is written never lands on what it is made from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asced_stores import TrajectoryStore
from asced_stores.backends.opening import check_apart, open_backend
from asced_stores.copying.merging import merge
from asced_stores.copying.selecting import repack, select_runs
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store

SMALL = {"runs": 6, "batch_size": 4, "steps": 3, "shape": (1, 8, 8)}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrajectoryStore:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.zarr").symlink_to("runs.zarr")
    (tmp_path / "here").symlink_to(".")
    return synthetic_store(tmp_path / "runs.zarr", **SMALL)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "out",
    [
        *("runs.zarr", "runs.zarr/", "./runs.zarr", "x/../runs.zarr", "link.zarr"),
        *("here/here/runs.zarr", "{}/runs.zarr", "file://{}/runs.zarr"),
        *("runs.zarr/part.zarr", "link.zarr/eps"),
        ".",
    ],
)
def test_every_name_of_a_source_is_refused(
    out: str, store: TrajectoryStore, tmp_path: Path
) -> None:
    out = out.format(tmp_path)
    other = synthetic_store(tmp_path / "other.zarr", seed=50, **SMALL)  # type: ignore[arg-type]
    before = dict(store.backend.walk())
    with pytest.raises(InputError, match="the store that is read: choose an --out"):
        select_runs(store, out, [0, 5], overwrite=True)
    with pytest.raises(InputError, match="the store that is read: choose an --out"):
        repack(store, out, dtype="float32", overwrite=True)
    with pytest.raises(InputError, match="the store that is read: choose an --out"):
        merge([other, store], out, overwrite=True)
    assert dict(store.backend.walk()) == before
    assert store.verify().ok


def test_neighbours_are_no_sources(store: TrajectoryStore, tmp_path: Path) -> None:
    for out in ("runs.zarr2", "runs", "x/runs.zarr", "memory://runs.zarr", "s3://b/runs.zarr"):
        check_apart(out, [store.backend])
    kept = select_runs(store, "runs.zarr2", [0])
    assert select_runs(store, "runs.zarr2", [1, 2], overwrite=True).planned_runs == 2
    assert kept.backend.position == open_backend(tmp_path / "runs.zarr2").position


def test_object_storage_is_compared_by_endpoint_bucket_and_prefix() -> None:
    here, there = {"endpoint": "http://127.0.0.1:9"}, {"endpoint": "http://127.0.0.2:9"}
    source = open_backend("s3://bucket/runs.zarr", storage_options=here)
    for out in ("s3://bucket/runs.zarr/", "s3://bucket/runs.zarr/a", "s3://bucket"):
        with pytest.raises(InputError, match="the store that is read"):
            check_apart(out, [source], storage_options=here)
        check_apart(out, [source], storage_options=there)
    check_apart("s3://bucket/runs", [source], storage_options=here)
    check_apart("s3://other/runs.zarr", [source], storage_options=here)
    check_apart("memory://a/b", [open_backend("memory://a")])


def test_synthetic_stores_need_no_pytest() -> None:
    code = "import sys, asced_stores.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
