"""What a call was is kept, compared, and given back as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from asced_recorders import Recorder, record
from asced_recorders.pipelines.call_facts import arguments_again, from_json, read_call, to_json
from asced_stores import TrajectoryStore, open_runs
from asced_stores.copying.merging import merge
from asced_stores.errors import InputError

Build = Callable[..., Any]
QUIET: dict[str, Any] = {"num_inference_steps": 3, "output_type": "np"}


def again(path: Path, batch: int = 0) -> tuple[dict[str, Any], list[str]]:
    """Arguments of a recorded batch, as a replay would give them."""
    ds = open_runs(path)
    rows = ds.isel(run=np.flatnonzero(ds["batch"].values == batch))
    scalars = {
        name: rows[name].values for name in ("prompt", "label", "guidance_scale", "arguments")
    }
    return arguments_again(ds.attrs, scalars, rows.sizes["run"])


@pytest.mark.parametrize(
    "value",
    [
        (0, 0),
        [1.5, None, "a"],
        {"scale": 0.5, "sizes": (1, 2)},
        float("inf"),
        np.array([0.9, 0.5], np.float32),
        torch.tensor([[1, 2]]),
        torch.tensor([0.5], dtype=torch.bfloat16),
    ],
)
def test_values_come_back_as_they_were(value: Any) -> None:
    kept = json.loads(json.dumps(to_json(value), allow_nan=False))
    found = from_json(kept)
    assert type(found) is type(value)
    if isinstance(value, torch.Tensor):
        assert found.dtype == value.dtype
        assert torch.equal(found, value)
    elif isinstance(value, np.ndarray):
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)
    else:
        assert found == value


def test_what_cannot_be_kept_is_named() -> None:
    facts = read_call(
        {"image": torch.zeros(1, 3, 64, 64), "eta": 0.3, "hook": print, "lora": "/home/me/l.bin"}
    )
    assert facts.call == {"eta": 0.3}
    assert facts.missing == ("hook", "image", "lora")


@pytest.mark.parametrize(
    "arguments",
    [
        {"prompt": ["a cat", "a dog"], "negative_prompt": ["ugly", "red"], "eta": 0.4},
        {"prompt": ["a cat", "a dog"], "negative_prompt": ["ugly", "ugly"]},
        {"prompt": "a cat", "negative_prompt": "ugly", "guidance_rescale": 0.5},
        {"prompt": ["a", "b"], "negative_prompt": ["c", "d"], "num_images_per_prompt": 2},
        {"prompt": ["a cat"], "timesteps": [900, 500, 20], "height": 16, "width": 16},
        {"prompt_embeds": torch.randn(2, 16, 8), "guidance_scale": 1.0},
    ],
)
def test_a_call_is_made_again_from_its_store(
    arguments: dict[str, Any], build: Build, tmp_path: Path
) -> None:
    pipe = build("sd")
    if "timesteps" in arguments:
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    path = tmp_path / "runs.zarr"
    copies = arguments.get("num_images_per_prompt", 1)
    prompt = arguments.get("prompt", [""] * 2)
    runs = copies * (1 if isinstance(prompt, str) else len(prompt))

    def seeds() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(5 + i) for i in range(runs)]

    with Recorder(pipe, path):
        wanted = pipe(**{**QUIET, **arguments}, generator=seeds()).images
    found, missing = again(path)
    assert missing == []
    assert {type(found.get("prompt")), type(found.get("negative_prompt"))} - {type(None)} <= {
        type(prompt)
    }
    np.testing.assert_array_equal(pipe(**found, generator=seeds()).images, wanted)


def test_each_call_keeps_what_it_has_of_its_own(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")
    path = tmp_path / "runs.zarr"
    with Recorder(pipe, path):
        pipe(["a", "b"], negative_prompt=["x", "y"], **QUIET)
        pipe(["c"], negative_prompt=["z"], **QUIET)
        pipe(["d"], **QUIET)
    assert again(path, 0)[0]["negative_prompt"] == ["x", "y"]
    assert again(path, 1)[0]["negative_prompt"] == ["z"]
    assert again(path, 2)[0].get("negative_prompt") is None


def test_a_call_that_samples_otherwise_is_refused_before_it_samples(
    build: Build, tmp_path: Path
) -> None:
    pipe = build("sd")
    with Recorder(pipe, tmp_path / "runs.zarr"):
        pipe(["a"], **QUIET)
        with pytest.raises(InputError, match=r"eta 0\.0, now 0\.5"):
            pipe(["a"], eta=0.5, **QUIET)
        pipe(["a"], **QUIET)
    assert open_runs(tmp_path / "runs.zarr").sizes["run"] == 2


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"negative_prompt": "red"}, 'negative_prompt "ugly", now "red"'),
        ({"call_options": {"eta": 0.5}}, "eta 0.0, now 0.5"),
    ],
)
def test_resuming_and_merging_compare_the_calls(
    other: dict[str, Any], named: str, build: Build, tmp_path: Path
) -> None:
    pipe = build("sd")
    settings: dict[str, Any] = {"prompts": ["a", "b"], "steps": 3, "batch_size": 1}
    settings["negative_prompt"] = "ugly"
    a, b = tmp_path / "a.zarr", tmp_path / "b.zarr"
    record(pipe, a, runs=1, **settings)
    with pytest.raises(InputError, match=named):
        record(pipe, a, runs=1, resume=True, **(settings | other))
    record(pipe, b, runs=1, seed=5, **(settings | other))
    with pytest.raises(InputError, match="differ in call"):
        merge([TrajectoryStore.open(a), TrajectoryStore.open(b)], tmp_path / "m.zarr")
    record(pipe, a, runs=1, resume=True, **settings)


def test_resuming_compares_labels(build: Build, tmp_path: Path) -> None:
    pipe = build("dit")
    settings: dict[str, Any] = {"steps": 3, "batch_size": 1, "runs": 2}
    record(pipe, tmp_path / "a.zarr", labels=[1, 2], **settings)
    with pytest.raises(InputError, match="prompts_sha256"):
        record(pipe, tmp_path / "a.zarr", labels=[1, 3], resume=True, **settings)


def test_prompts_that_are_left_out_are_named_as_missing(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")
    with Recorder(pipe, tmp_path / "runs.zarr", prompts=False):
        pipe(["a"], negative_prompt=["b"], **QUIET)
    assert open_runs(tmp_path / "runs.zarr").attrs["call_missing"] == ["negative_prompt", "prompt"]


def test_seeds_of_generators_that_were_drawn_from_are_not_known(
    build: Build, tmp_path: Path
) -> None:
    pipe = build("sd")
    one = torch.Generator().manual_seed(7)
    with Recorder(pipe, tmp_path / "runs.zarr"):
        for _ in range(3):
            pipe(["a"], generator=one, **QUIET)
        twice = torch.Generator().manual_seed(9)
        with pytest.raises(InputError, match="2 runs, and a batch of the store holds 1"):
            pipe(["a", "b"], generator=[twice, twice], **QUIET)
    assert open_runs(tmp_path / "runs.zarr")["seed"].values.tolist() == [7, -1, -1]
    with Recorder(pipe, tmp_path / "twice.zarr"):
        pipe(["a", "b"], generator=[twice.manual_seed(9)] * 2, **QUIET)
    assert open_runs(tmp_path / "twice.zarr")["seed"].values.tolist() == [9, -1]
