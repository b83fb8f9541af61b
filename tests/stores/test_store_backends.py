"""Where a store may lie beside a disk: any URL that obstore opens, or a store object."""

from __future__ import annotations

import numpy as np
import pytest
from obstore.store import MemoryStore

from asced_recorders import Recorder
from asced_stores import TrajectoryStore, open_runs
from asced_stores.backends import open_backend
from asced_stores.errors import InputError


def test_a_store_object_is_written_and_read() -> None:
    memory = MemoryStore()
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8), np.float32)
    with Recorder.custom(memory, (1, 8, 8), 2) as recorder:
        for alpha, sigma in ((0.1, 0.99), (0.9, 0.44)):
            recorder.step(sample=x, model_output=x, alpha=alpha, sigma=sigma)
        recorder.end(x)
    np.testing.assert_array_equal(open_runs(memory)["sample"].values, x)
    TrajectoryStore.open(memory).seal()
    assert open_runs(memory).sizes["run"] == 2
    with pytest.raises(InputError, match="exists"):
        Recorder.custom(memory, (1, 8, 8), 2)
    with pytest.raises(InputError, match="of another process"):
        open_backend("object://nowhere")
    with pytest.raises(InputError, match="a int is no place"):
        open_backend(5)  # type: ignore[arg-type]


def test_other_clouds_are_opened_by_their_url(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_backend("gs://bucket/runs").url == "gs://bucket/runs"
    with pytest.raises(InputError, match="Account must be specified"):
        open_backend("az://container/runs")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert open_backend("az://container/runs").url == "az://container/runs"
    with pytest.raises(InputError, match="expected a local path, or one of"):
        open_backend("ftp://host/runs")


def test_an_endpoint_needs_its_scheme() -> None:
    with pytest.raises(InputError, match="such as http://localhost:9000"):
        open_backend("s3://bucket/runs", storage_options={"endpoint": "localhost:9000"})
