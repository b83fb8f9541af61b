"""Loops of one's own."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from asced_recorders import Recorder, record
from asced_stores import open_runs
from asced_stores.errors import InputError

ALPHA = np.sqrt(np.linspace(0.02, 0.98, 6))
SIGMA = np.sqrt(1 - ALPHA**2)


def loop(recorder: Any, array: Any, runs: int = 3, seed: int = 0, shape: Any = (1, 8, 8)) -> Any:
    """DDIM towards a fixed picture."""
    rng = np.random.default_rng(seed)
    picture = np.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    x = rng.normal(size=(runs, *shape))
    start = x
    for k in range(6):
        eps = (x - ALPHA[k] * picture) / SIGMA[k]
        recorder.step(
            sample=array(x),
            model_output=array(eps),
            alpha=ALPHA[k],
            sigma=SIGMA[k],
            prediction_type="epsilon",
        )
        following = (ALPHA[k + 1], SIGMA[k + 1]) if k < 5 else (1.0, 0.0)
        x = following[0] * picture + following[1] * eps
    return start, x


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_a_loop_is_recorded(array: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.zarr"
    with Recorder.custom(path, (1, 8, 8), 6, checkpoints=(2,)) as recorder:
        start, end = loop(recorder, array)
        recorder.describe(seed=[4, 5, 6], label=1)
        recorder.end(array(end))
        loop(recorder, array, runs=2, seed=1)  # a short batch, without its end
    ds = open_runs(path)
    assert ds.sizes["run"] == 5
    assert ds["seed"].values.tolist() == [4, 5, 6, -1, -1]
    np.testing.assert_allclose(ds["x_init"][:3], start.astype("f4"))
    np.testing.assert_allclose(ds["sample"][:3], end.astype("f4"), atol=1e-6)
    np.testing.assert_allclose(ds["x0"][3:, -1], ds["sample"][3:], atol=1e-3)
    np.testing.assert_allclose(ds["alpha"], ALPHA)
    assert ds["image"].shape == (5, 8, 8, 1)
    assert ds.attrs["prediction_type"] == "epsilon"


def test_it_works_without_a_context(tmp_path: Path) -> None:
    recorder = Recorder.custom(tmp_path / "runs.zarr", (1, 8, 8), 6)
    loop(recorder, np.asarray)
    recorder.close()
    recorder.close()
    assert open_runs(tmp_path / "runs.zarr").sizes["run"] == 3


@pytest.mark.parametrize(
    ("shape", "sample", "stored"),
    [
        ((3, 8, 8), (2, 3, 8, 8), (2, 3, 8, 8)),
        ((2, 3, 8, 8), (2, 3, 8, 8), (2, 3, 8, 8)),  # the shape was given with the runs
        ((1, 8, 8), (1, 8, 8), (1, 1, 8, 8)),  # one run without its dimension
        ((8, 8), (2, 8, 8), (2, 1, 8, 8)),
        ((2,), (4, 2), (4, 2, 1, 1)),  # points in the plane
        ((3, 4, 8, 8), (2, 3, 4, 8, 8), (2, 3, 4, 8, 8)),  # video
    ],
)
def test_shapes(shape: Any, sample: Any, stored: Any, tmp_path: Path) -> None:
    with Recorder.custom(tmp_path / "runs.zarr", shape, 1) as recorder:
        x = torch.ones(sample)
        recorder.step(sample=x, model_output=x, alpha=0.6, sigma=0.8, prediction_type="sample")
    assert open_runs(tmp_path / "runs.zarr")["sample"].shape == stored


def test_levels_may_be_tensors_but_not_differ(tmp_path: Path) -> None:
    x = torch.ones(2, 1, 4, 4)
    level = torch.full((2, 1, 1, 1), 0.5)
    with Recorder.custom(tmp_path / "runs.zarr", (1, 4, 4), 1) as recorder:
        recorder.step(sample=x, model_output=x, alpha=level, sigma=level, prediction_type="flow")
        mixed = torch.tensor([0.5, 0.6])
        with pytest.raises(InputError, match="alpha differs from run to run"):
            recorder.step(sample=x, model_output=x, alpha=mixed, sigma=0.5)


def test_mistakes_are_named(tmp_path: Path) -> None:
    x = np.zeros((2, 1, 4, 4))
    recorder = Recorder.custom(tmp_path / "runs.zarr", (1, 4, 4), 3)
    step: dict[str, Any] = {"sample": x, "model_output": x, "alpha": 0.6, "sigma": 0.8}
    with pytest.raises(InputError, match="expected \\(runs, 1, 4, 4\\)"):
        recorder.step(**{**step, "sample": x[..., :3]})
    with pytest.raises(InputError, match="unknown prediction type"):
        recorder.step(**step, prediction_type="noise")
    with pytest.raises(InputError, match="sigma above 0"):
        recorder.step(**{**step, "sigma": 0.0})
    recorder.step(**step)
    recorder.step(**{**step, "alpha": 0.8})
    with pytest.raises(InputError, match="noisier than the one before"):
        recorder.step(**{**step, "alpha": 0.7})
    recorder.step(**step)
    with pytest.raises(InputError, match="the steps before 2"):
        recorder.step(**{**step, "sample": x[:1], "model_output": x[:1], "alpha": 0.7})
    recorder.step(**step)
    with pytest.raises(InputError, match="ended after 1 of 3 steps"):
        recorder.end(x)
    recorder.step(**step)
    with pytest.raises(InputError, match="not recorded"):
        recorder.close()
    assert not (tmp_path / "runs.zarr").exists()


def test_what_was_said_of_a_refused_batch_holds_for_the_next_try(tmp_path: Path) -> None:
    x = np.zeros((1, 1, 4, 4))
    step: dict[str, Any] = {"sample": x, "model_output": x, "alpha": 0.6, "sigma": 0.8}
    path = tmp_path / "runs.zarr"
    with Recorder.custom(path, (1, 4, 4), 1) as recorder:
        recorder.describe(seed=7, prompt="a")
        with pytest.raises(InputError, match="sigma above 0"):
            recorder.step(**{**step, "sigma": 0.0})
        recorder.step(**step)  # the same batch again
        recorder.commit()
        recorder.describe(seed=8)
        with pytest.raises(InputError, match="sigma above 0"):
            recorder.step(**{**step, "sigma": 0.0})
        recorder.step(**step)  # another one, of which this is said after its steps
        recorder.describe(seed=9)
        recorder.describe(seed=10)  # the next one's
        recorder.step(**step)
        recorder.commit()
        recorder.describe(seed=11)
        recorder.discard()
        recorder.step(**step)
    ds = open_runs(path)
    assert ds["seed"].values.tolist() == [7, 9, 10, -1]
    assert ds["prompt"].values.tolist() == ["a", "", "", ""]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"activations": 3}, "activations are the recorder's own: call them otherwise"),
        ({"format": "mine"}, "format are the recorder's own"),
        ({"call": "by hand"}, "attribute call is 'by hand': give a mapping"),
        (
            {"level": float("nan")},
            r"attribute level is nan, which JSON does not hold: give text, a finite number",
        ),
        ({"of": [{"x": b"1"}]}, r"attribute of\[0\]\.x is b'1', which JSON does not hold"),
        ({"of": {1: 2}}, "attribute of has the name 1: give text, for example '1'"),
        ([("of", 1)], "give a mapping of names to values"),
    ],
)
def test_facts_that_stand_in_others_place_are_refused_at_once(
    attributes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        Recorder.custom(tmp_path / "runs.zarr", (1, 4, 4), 1, attributes=attributes)
    network = torch.nn.Identity()
    with pytest.raises(InputError, match=message):
        Recorder.watch(
            network,
            tmp_path / "runs.zarr",
            levels=[(0.6, 0.8)],
            prediction_type="epsilon",
            attributes=attributes,
        )


def test_facts_may_be_any_mapping_of_any_numbers(tmp_path: Path) -> None:
    x = np.zeros((1, 1, 4, 4))
    given: Any = {"count": np.int64(3), "of": MappingProxyType({"by": (np.float32(0.5), True)})}
    with Recorder.custom(
        tmp_path / "runs.zarr", (1, 4, 4), 1, attributes=MappingProxyType(given)
    ) as recorder:
        recorder.step(sample=x, model_output=x, alpha=0.6, sigma=0.8)
    attributes = open_runs(tmp_path / "runs.zarr").attrs
    assert (attributes["count"], attributes["of"]) == (3, {"by": [0.5, True]})


def test_another_schedule_is_refused(tmp_path: Path) -> None:
    x = np.zeros((1, 1, 4, 4))
    with Recorder.custom(tmp_path / "runs.zarr", (1, 4, 4), 1) as recorder:
        recorder.step(sample=x, model_output=x, alpha=0.6, sigma=0.8)
        with pytest.raises(InputError, match="one store holds one schedule"):
            recorder.step(sample=x, model_output=x, alpha=0.8, sigma=0.6)


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_provenance_is_that_of_a_recorded_pipeline(
    array: Any, tiny_pipeline: Any, tmp_path: Path
) -> None:
    with Recorder.custom(tmp_path / "runs.zarr", (1, 8, 8), 6, model=tiny_pipeline) as recorder:
        loop(recorder, array)
    attributes = open_runs(tmp_path / "runs.zarr").attrs
    record(tiny_pipeline, tmp_path / "other.zarr", runs=2, steps=2, batch_size=2)
    expected = open_runs(tmp_path / "other.zarr").attrs
    for name in ("device", "threads", "flags", "versions", "model_fingerprint"):
        assert attributes[name] == expected[name]
    assert attributes["device"] == "cpu"


def test_a_model_is_known_by_its_weights(tmp_path: Path) -> None:
    def fingerprint(name: str, model: Any, **options: Any) -> Any:
        with Recorder.custom(tmp_path / name, (1, 8, 8), 6, model=model, **options) as recorder:
            loop(recorder, np.asarray)
        return open_runs(tmp_path / name).attrs.get("model_fingerprint")

    net = torch.nn.Linear(2, 2)
    first = fingerprint("a.zarr", net)
    assert first.startswith("sha256:")
    with torch.no_grad():
        net.weight += 1
    assert fingerprint("b.zarr", net) != first
    assert fingerprint("c.zarr", None) is None
    assert fingerprint("d.zarr", net, attributes={"model_fingerprint": "own"}) == "own"
    with pytest.raises(InputError, match="model is a str"):
        fingerprint("e.zarr", "weights.pt")
