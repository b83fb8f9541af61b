"""Replay of pipelines that are called: prompts, guidance, latents."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from asced_analysis.replay import exactness, replay
from asced_recorders import Recorder, record
from asced_recorders.sampling import run_generators
from asced_stores import open_runs
from asced_stores.errors import InputError

BUILDERS = Path(__file__).parents[1] / "recorders" / "conftest.py"


@pytest.fixture(scope="module")
def builders() -> ModuleType:
    """Tiny pipelines of every family."""
    spec = importlib.util.spec_from_file_location("tiny_pipelines", BUILDERS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("name", ["stable_diffusion", "sdxl"])
def test_latent_pipelines_come_back_and_are_corrected(
    name: str, builders: ModuleType, tmp_path: Path
) -> None:
    pipe = quiet(getattr(builders, name)())
    store = record(pipe, tmp_path / "r.zarr", runs=4, steps=6, batch_size=2, prompts=["a b", "c d"])
    twin = replay(store, tmp_path / "n.zarr", strategy="none", pipeline=pipe)
    assert exactness(twin).bit_exact
    mask = np.zeros(store.spec.sample_shape[-2:], bool)
    mask[1:4, 1:4] = True
    twin = replay(store, tmp_path / "c.zarr", masks={1: mask}, step=3, pipeline=pipe)
    same = open_runs(twin.path)["difference"].values == 0
    assert same.tolist() == [True, False, True, True]


def test_a_packed_pipeline_comes_back(builders: ModuleType, tmp_path: Path) -> None:
    pipe = quiet(builders.dit())
    store = record(pipe, tmp_path / "r.zarr", runs=2, steps=5, batch_size=2, labels=[1, 2])
    twin = replay(store, tmp_path / "n.zarr", strategy="none", pipeline=pipe)
    assert exactness(twin).bit_exact
    mask = np.ones(store.spec.sample_shape[-2:], bool)
    with pytest.raises(InputError, match="without a correction only"):
        replay(store, tmp_path / "c.zarr", masks={1: mask}, step=3, pipeline=pipe)


def test_a_call_of_one_s_own(tiny_pipeline: Any, tmp_path: Path) -> None:
    from asced_analysis.replay.calls import call_again
    from asced_analysis.replay.recording import Batch, Recording

    path = tmp_path / "runs.zarr"
    with Recorder(tiny_pipeline, path):
        tiny_pipeline(batch_size=3, generator=run_generators([5, 6, 7]), num_inference_steps=8)

    def call(seeds: list[int]) -> Any:
        return lambda pipe, batch: pipe(
            batch_size=len(batch.runs), generator=run_generators(seeds), num_inference_steps=8
        )

    recording = Recording(path)
    batch: Batch = next(recording.batches())
    ends = call_again(recording, batch, tiny_pipeline, None, call([5, 6, 7]))
    assert (ends == recording.read(batch, "sample")).all()
    with pytest.raises(InputError, match="did not begin with the recorded noise"):
        call_again(recording, batch, tiny_pipeline, None, call([1, 2, 3]))
