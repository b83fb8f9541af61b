"""Object storage that fails: errors, silence, lost answers, a killed writer."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import crash_trials
import numpy as np
import pytest
from faulty_proxy import Fault, FaultyProxy

from asced_stores import TrajectoryStore, open_runs
from asced_stores.backends.opening import open_backend
from asced_stores.errors import BackendError, InputError
from asced_stores.testing import synthetic_batch, synthetic_store

PATIENT = {"timeout": 1, "max_retries": 12, "retry_timeout": 60}


def test_errors_silence_and_lost_answers_lose_nothing(s3_endpoint: str, s3_path: str) -> None:
    rng, lock = random.Random(1), threading.Lock()
    spent = {"silence": 0}

    def choose(method: str, path: str) -> Fault:
        with lock:
            fault = rng.choice((500, 503, "lost", "silence"))
            if rng.random() > 0.15 or (fault == "silence" and spent["silence"] > 1):
                return None
            spent["silence"] += fault == "silence"
            return fault

    with FaultyProxy(s3_endpoint, choose, silence=1.5) as proxy:
        options = {"endpoint": proxy.endpoint, **PATIENT}
        store = synthetic_store(
            s3_path,
            runs=8,
            steps=3,
            shape=(1, 8, 8),
            batch_size=4,
            fields=("eps", "x0"),
            storage_options=options,
        )
        assert store.verify().ok
        eps = open_runs(s3_path, storage_options=options)["eps"].values
        assert {fault for _, _, fault in proxy.faults} >= {500, 503, "lost"}
    np.testing.assert_array_equal(eps, synthetic_batch(store.spec, range(8))["eps"])


def test_a_conditional_put_whose_answer_was_lost_finds_itself(
    s3_endpoint: str, s3_path: str
) -> None:
    left = ["lost"]

    def choose(method: str, path: str) -> Fault:
        return left.pop() if method == "PUT" and left else None

    with FaultyProxy(s3_endpoint, choose) as proxy:
        backend = open_backend(s3_path, storage_options={"endpoint": proxy.endpoint, **PATIENT})
        stamp = backend.create("a", [b"mine"])
        assert [fault for _, _, fault in proxy.faults] == ["lost"]
    direct = open_backend(s3_path, storage_options={"endpoint": s3_endpoint})
    assert direct.read("a") == b"mine"
    assert direct.stamp("a") == stamp
    with pytest.raises(FileExistsError):
        direct.create("a", [b"yours"])


def test_storage_that_never_answers_is_a_typed_error(s3_endpoint: str, s3_path: str) -> None:
    with FaultyProxy(s3_endpoint, lambda method, path: 503) as proxy:
        options = {"endpoint": proxy.endpoint, "max_retries": 1, "retry_timeout": 2}
        with pytest.raises(BackendError, match="endpoint"):
            TrajectoryStore.open(s3_path, storage_options=options)


def test_unknown_options_and_other_schemes_are_refused() -> None:
    with pytest.raises(InputError, match="environment"):
        open_backend("s3://bucket/runs", storage_options={"secret_access_key": "x"})
    with pytest.raises(InputError, match="ftp"):
        open_backend("ftp://host/runs")
    with pytest.raises(InputError, match="no name"):
        open_backend("s3://")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["shard x0", "status", "marker"])
def test_a_killed_writer_is_resumed(s3_endpoint: str, s3_path: str, point: str) -> None:
    options = {"endpoint": s3_endpoint}
    spec = crash_trials.synthetic_spec(steps=crash_trials.STEPS, shape=crash_trials.SHAPE)
    store = TrajectoryStore.create(
        s3_path,
        spec,
        runs=crash_trials.RUNS,
        batch_size=crash_trials.BATCH,
        storage_options=options,
    )
    code = (
        "from asced_stores import TrajectoryStore\n"
        f"import sys; sys.path.insert(0, {str(Path(crash_trials.__file__).parent)!r})\n"
        "from crash_trials import write_pending\n"
        f"store = TrajectoryStore.open({s3_path!r}, storage_options={options!r})\n"
        f"write_pending(store, 0, 1, (2, {point!r}))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    committed = [0, 1, 2] if point == "marker" else [0, 1]
    assert store.committed_batches() == committed
    crash_trials.check_intact(store, complete=False)
    crash_trials.write_pending(store, 0, 1)
    crash_trials.check_intact(store, complete=True)
