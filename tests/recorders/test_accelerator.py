"""What is recorded on an accelerator, whichever kind: `make test-gpu`, about a minute.

``ASCED_TEST_DEVICE=cpu`` runs the same tests where there is none.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pipelines
import torch

from asced_analysis.correction import Corrector
from asced_analysis.replay import exactness, replay
from asced_recorders import Recorder, record
from asced_recorders.pipelines.devices import default_device
from asced_recorders.pipelines.fingerprint import model_fingerprint
from asced_recorders.pipelines.unseeded import NoiseWatch
from asced_recorders.tap.tap import StepEvent, Tap, TapListener
from asced_stores import open_runs

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device() -> str:
    found = os.environ.get("ASCED_TEST_DEVICE") or default_device()
    if found == "cpu" and "ASCED_TEST_DEVICE" not in os.environ:
        pytest.skip("no accelerator")
    return found


@pytest.fixture
def pipe(device: str, tiny_pipeline: Any) -> Any:
    return copy.deepcopy(tiny_pipeline).to(device)


@pytest.fixture
def prompted(device: str) -> Any:
    torch.manual_seed(0)
    pipe = tiny_pipelines.stable_diffusion()
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


CALL: dict[str, Any] = {"num_inference_steps": 8, "output_type": "np"}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_a_recording_is_what_the_device_computed(prompted: Any, tmp_path: Path) -> None:
    class Seen(TapListener):
        def __init__(self) -> None:
            self.x0: list[np.ndarray] = []

        def before_step(self, event: StepEvent) -> None:
            self.x0.append(event.x0.cpu().numpy())

    seen = Seen()
    with Tap(prompted, seen):
        plain = prompted(["a", "b"], generator=generator(), **CALL).images
    with Recorder(prompted, tmp_path / "runs.zarr", dtype="float32"):
        found = prompted(["a", "b"], generator=generator(), **CALL).images
    ds = open_runs(tmp_path / "runs.zarr")
    np.testing.assert_array_equal(plain, found)
    np.testing.assert_array_equal(ds["x0"].values, np.stack(seen.x0, 1))
    assert ds.attrs["device"].startswith(prompted.device.type)


def test_batches_that_reuse_buffers_keep_their_own_steps(pipe: Any, tmp_path: Path) -> None:
    store = record(pipe, tmp_path / "runs.zarr", runs=12, steps=8, batch_size=4)
    ds = open_runs(store.path)
    x = ds["alpha"] * ds["x0"].astype("f4") + ds["sigma"] * ds["eps"].astype("f4")
    np.testing.assert_allclose(x.transpose("run", "step", ...)[:, 0], ds["x_init"], atol=1e-2)
    assert len(np.unique(ds["sample"].values[:, 0, 0, 0])) == 12


def test_weights_hash_alike_on_host_and_device(pipe: Any) -> None:
    there = model_fingerprint(pipe)
    assert model_fingerprint(pipe.to("cpu")) == there


def test_runs_come_back_and_are_corrected(prompted: Any, tmp_path: Path) -> None:
    store = record(
        prompted, tmp_path / "runs.zarr", runs=4, steps=8, batch_size=2, prompts=["a", "b"]
    )
    same = replay(store, tmp_path / "same.zarr", strategy="none", pipeline=prompted)
    assert exactness(same).bit_exact
    mask = np.zeros(store.spec.sample_shape[-2:], bool)
    mask[1:4, 1:4] = True
    edited = replay(store, tmp_path / "edited.zarr", masks={1: mask}, step=4, pipeline=prompted)
    changed = open_runs(edited.path)["difference"].values > 0
    assert changed.tolist() == [False, True, False, False]


def test_a_corrector_edits_on_the_device(pipe: Any) -> None:
    corrector = Corrector(None, step=4)
    mask = np.zeros((1, 16, 16), bool)
    mask[:, 4:9, 4:9] = True
    images = []
    for correct in (False, True):
        corrector.assign([0], masks=mask)
        with Tap(pipe, corrector if correct else TapListener()):
            images.append(pipe(generator=generator(), **CALL).images)
    assert (images[0] != images[1]).any()


def test_noise_of_any_device_is_noticed(device: str) -> None:
    """A pipeline may lie on several: its scheduler may draw on another than the current one."""
    if device == "cpu" or torch.accelerator.device_count() < 2:
        pytest.skip("one device")
    last = f"{default_device()}:{torch.accelerator.device_count() - 1}"
    watch = NoiseWatch(generator())
    assert watch.facts() == {}
    torch.randn(2, device=last)
    assert watch.facts() == {"unseeded_noise": True}
