"""Guiders of Modular Diffusers, which hold what classic calls are told of their guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from modular_families import modular_with_text

from asced_analysis.correction.layout_adapter import adapted_tap
from asced_recorders import Recorder, record
from asced_recorders.tap.tap import TapListener
from asced_stores import open_runs
from asced_stores.errors import InputError

SIZE = {"height": 16, "width": 16}
CALL: dict[str, Any] = {"num_inference_steps": 2, "output_type": "np", **SIZE}


@pytest.fixture
def pipe() -> Any:
    torch.manual_seed(0)
    return modular_with_text(3.0)


def test_the_guiders_scale_is_that_of_each_run(pipe: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"prompts": ["a", "b"], "steps": 2, "call_options": SIZE}
    record(pipe, tmp_path / "runs.zarr", **options)
    with Recorder(pipe, tmp_path / "watched.zarr"):
        pipe(prompt=["a", "b"], **CALL)
    for name in ("runs", "watched"):
        ds = open_runs(tmp_path / f"{name}.zarr")
        assert ds["guidance_scale"].values.tolist() == [3, 3]
        assert "guidance_scale" not in ds.attrs["call"]  # it takes none
    told: list[Any] = []
    with adapted_tap(pipe, TapListener(), told.append):
        pipe(prompt=["a"], **CALL)
    assert told[0]["guidance_scale"] == 3


def test_another_guidance_in_the_same_store_is_refused(pipe: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.zarr"
    guider = type(pipe.guider)
    with Recorder(pipe, path):
        pipe(prompt=["a"], **CALL)
        for options, said in (
            ({"guidance_scale": 5.0}, r"guider: guidance_scale 3\.0, now 5\.0"),
            ({"guidance_scale": 3.0, "guidance_rescale": 0.5}, r"guidance_rescale 0\.0, now 0\.5"),
        ):
            pipe.guider = guider(**options)
            with pytest.raises(InputError, match=said):
                pipe(prompt=["a"], **CALL)
        pipe.guider = guider(guidance_scale=3.0)
        pipe(prompt=["a"], **CALL)
    assert open_runs(path).sizes["run"] == 2
    pipe.guider = guider(guidance_scale=5.0)
    with pytest.raises(InputError, match="guidance_scale"), Recorder(pipe, path, resume=True):
        pipe(prompt=["a"], **CALL)
