"""Specifications: what fits together, what is refused, what makes a fingerprint."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from asced_stores import TrajectorySpec, TrajectoryStore, VariableSpec
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_spec
from asced_stores.writing.placement import placement


def test_variables_follow_the_design() -> None:
    spec = synthetic_spec(steps=5, shape=(2, 3, 8, 9), checkpoints=(1, 3))
    found = {v.name: (v.dims, v.shape, v.dtype) for v in spec.variables}
    assert found["eps"] == (("step", "frame", "channel", "y", "x"), (5, 2, 3, 8, 9), "float16")
    assert found["checkpoint_sample"] == (
        ("checkpoint", "frame", "channel", "y", "x"),
        (2, 2, 3, 8, 9),
        "float32",
    )
    assert found["sample"] == (("frame", "channel", "y", "x"), (2, 3, 8, 9), "float32")
    assert found["image"] == (("row", "column", "colour"), (8, 9, 3), "uint8")


def test_singular_levels_have_an_infinite_log_snr() -> None:
    spec = TrajectorySpec((1, 4, 4), [1, 0.5, 0], alpha=[0, 0.5, 1], sigma=[1, 0.5, 0])
    assert spec.log_snr.tolist() == [-math.inf, 0, math.inf]
    json.dumps(spec.to_json(), allow_nan=False)
    store = TrajectoryStore.create("memory://singular", spec, batch_size=2, overwrite=True)
    assert TrajectoryStore.open("memory://singular").spec == store.spec


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"sample_shape": (4, 4)}, "sample_shape"),
        ({"sample_shape": (1, 4, 0)}, "absurd"),
        ({"sample_shape": (1, 10**9, 10**9)}, "absurd"),
        ({"alpha": [1.0]}, "one each a step"),
        ({"alpha": [math.nan, 1.0]}, "finite"),
        ({"sigma": [-1.0, 1.0]}, "at least 0"),
        ({"checkpoints": (2,)}, "rising steps from 0 to 1"),
        ({"checkpoints": (1, 0)}, "rising steps"),
        ({"fields": ("eps", "nothing")}, "fields"),
        ({"dtype": "bfloat16"}, "float16 or float32"),
        ({"extra": (VariableSpec("eps", (), (), "bool"),)}, "in use"),
        ({"extra": (VariableSpec("run", (), (), "int64"),)}, "in use"),
        ({"extra": (VariableSpec("token", ("token", "y"), (3, 4), "bool"),)}, "their dimensions"),
        ({"extra": (VariableSpec("mask", ("y",), (9,), "bool"),)}, "along y"),
        ({"attributes": {"log_snr": math.inf}}, "strictly JSON"),
        ({"attributes": {"array": np.ones(2)}}, "strictly JSON"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], match: str) -> None:
    spec = TrajectorySpec((1, 4, 4), [1, 0], alpha=[0.5, 1], sigma=[1, 0.5])
    with pytest.raises(InputError, match=match):
        dataclasses.replace(spec, **change)


@pytest.mark.parametrize("name", ["..", "a/b", "", "commits/x", "é", "1a", "a" * 65])
def test_names_cannot_leave_the_store(name: str) -> None:
    with pytest.raises(InputError, match="letters"):
        VariableSpec(name, (), (), "bool")


def test_fingerprints_tell_models_apart_not_machines() -> None:
    spec = synthetic_spec()
    same = synthetic_spec(attributes={"device": "cuda", "versions": {"torch": "9"}, "seed": 4})
    assert spec.fingerprint == same.fingerprint
    for other in (
        synthetic_spec(steps=11),
        synthetic_spec(dtype="float32"),
        synthetic_spec(attributes={"model_fingerprint": "another"}),
        synthetic_spec(attributes={"scheduler_config": {"eta": 1.0}}),
    ):
        assert other.fingerprint != spec.fingerprint


def test_ranks_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert placement() == (0, 1)
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert placement() == (3, 8)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert placement() == (1, 2)
    assert placement(0, 1) == (0, 1)
    with pytest.raises(InputError, match="0 to 1"):
        placement(2, 2)
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(InputError, match="no numbers"):
        placement()


@pytest.mark.parametrize(("runs", "batch_size"), [(0, 4), (-1, 4), (4, 0), (10**18, 1)])
def test_absurd_numbers_of_runs_are_refused(runs: int, batch_size: int) -> None:
    with pytest.raises(InputError):
        TrajectoryStore.create(
            "memory://absurd", synthetic_spec(), runs=runs, batch_size=batch_size
        )
