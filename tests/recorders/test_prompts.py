"""Prompts from files, and recordings of pipelines that take prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_recorders import record
from asced_recorders.pipelines.prompts import Prompt, prompts_hash, read_prompts
from asced_stores import open_runs
from asced_stores.errors import InputError
from asced_stores.format.calls import hidden_prompt


def test_one_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("a cat\n\n  a dog, running \n", encoding="utf-8")
    assert read_prompts(path) == (Prompt("a cat"), Prompt("a dog, running"))


def test_columns_of_csv_and_jsonl(tmp_path: Path) -> None:
    rows = [
        {"prompt": 'a "red" cat, big', "seed": 7, "guidance_scale": 5.5},
        {"prompt": "a dog", "negative_prompt": "ugly", "label": 3},
    ]
    table = tmp_path / "p.csv"
    table.write_text(
        'prompt,negative_prompt,seed,guidance_scale,label\n"a ""red"" cat, big",,7,5.5,\n'
        "a dog,ugly,,,3\n"
    )
    lines = tmp_path / "p.jsonl"
    lines.write_text("\n".join(json.dumps(row) for row in rows))
    expected = (
        Prompt('a "red" cat, big', seed=7, guidance_scale=5.5),
        Prompt("a dog", negative_prompt="ugly", label=3),
    )
    assert read_prompts(table) == read_prompts(lines) == read_prompts(rows) == expected
    assert prompts_hash(expected) != prompts_hash(expected[::-1])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "\n \n", "holds no prompts"),
        ("p.csv", "text\nhello\n", r"line 2 .* has columns \['text'\]"),
        ("p.csv", "prompt,seed\na,seven\n", "seed is 'seven', not a number"),
        ("p.csv", "prompt,seed\n,7\n", "has no prompt"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt"', "line 2 .* is no JSON"),
        ("p.jsonl", "[1]", "expected text"),
    ],
)
def test_a_mistake_is_named_by_its_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_prompts(tmp_path / name)


@pytest.mark.parametrize("kind", [dict, Prompt])
def test_a_guidance_scale_is_a_number(kind: Any) -> None:
    given = [kind(prompt="a"), kind(prompt="b", guidance_scale=float("nan"))]
    with pytest.raises(InputError, match="prompt 1: guidance_scale is nan: give a finite number"):
        read_prompts(given)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file of prompts"):
        read_prompts(tmp_path / "none.txt")


def test_record_with_prompts_guidance_and_seeds(build: Callable[..., Any], tmp_path: Path) -> None:
    prompts = [
        {"prompt": "a cat", "negative_prompt": "ugly"},
        {"prompt": "a dog", "seed": 99},
        {"prompt": "a bird"},
    ]
    events: list[dict[str, Any]] = []
    settings: dict[str, Any] = {"prompts": prompts, "steps": 4, "batch_size": 2}
    settings |= {"guidance_scale": 3.0, "seed": 5, "scheduler": "euler"}
    path = tmp_path / "runs.zarr"
    record(build("sd"), path, progress=events.append, **settings)
    ds = open_runs(path)
    assert ds["prompt"].values.tolist() == ["a cat", "a dog", "a bird"]
    assert ds["seed"].values.tolist() == [5, 99, 7]
    assert ds["guidance_scale"].values.tolist() == [3.0] * 3
    assert ds.sizes["step"] == 4
    assert ds["image"].shape == (3, 16, 16, 3)
    assert events[0]["event"] == "start"
    assert events[0]["bytes_per_run"] == sum(
        int(np.prod(ds[name].shape[1:])) * ds[name].dtype.itemsize
        for name in ("eps", "x0", "x_init", "sample", "image")
    )
    # A pipeline called with the same generators and prompts makes the same samples.
    import torch

    pipe = build("sd")
    from asced_recorders.pipelines.scheduler_names import make_scheduler

    pipe.scheduler = make_scheduler("euler", pipe.scheduler)
    latents = pipe(
        ["a cat", "a dog"],
        negative_prompt=["ugly", ""],
        generator=[torch.Generator().manual_seed(seed) for seed in (5, 99)],
        guidance_scale=3.0,
        num_inference_steps=4,
        output_type="latent",
    ).images
    np.testing.assert_array_equal(ds["sample"].values[:2], latents.numpy())
    # It is resumed only with the same prompts.
    (path / "commits" / "1.json").unlink()
    with pytest.raises(InputError, match="prompts_sha256"):
        record(build("sd"), path, resume=True, **{**settings, "prompts": ["a", "b", "c"]})
    record(build("sd"), path, resume=True, **settings)
    assert open_runs(path)["sample"].equals(ds["sample"])


def test_prompts_are_left_out_when_asked(build: Callable[..., Any], tmp_path: Path) -> None:
    record(
        build("sd"),
        tmp_path / "a.zarr",
        prompts=["secret", "other", "secret", ""],
        steps=2,
        batch_size=2,
        keep_prompts=False,
        call_options={"height": 16, "width": 32},
    )
    ds = open_runs(tmp_path / "a.zarr")
    first, other, again, empty = ds["prompt"].values.tolist()
    assert first.startswith("hidden:")
    assert first == again != other  # told apart, and not told
    assert empty == ""
    assert first != hidden_prompt("secret", b"")  # not without the key
    assert ds["sample"].shape == (4, 4, 8, 16)
    for path in (tmp_path / "a.zarr").rglob("*.json"):
        assert "secret" not in path.read_text()


def test_classes_of_a_conditional_pipeline(build: Callable[..., Any], tmp_path: Path) -> None:
    record(build("dit"), tmp_path / "a.zarr", labels=[3, 5], runs=4, steps=2, batch_size=2)
    assert open_runs(tmp_path / "a.zarr")["label"].values.tolist() == [3, 5, 3, 5]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("sd", {}, r"needs prompts \(--prompts FILE\)"),
        ("dit", {}, r"needs labels \(--classes\)"),
        ("dit", {"labels": [1], "negative_prompt": "x"}, "takes no negative_prompt"),
        ("sd", {"prompts": ["a"], "call_options": {"hight": 5}}, "takes no hight"),
        (
            "sd",
            {"prompts": [{"prompt": "a", "guidance_scale": 2}, {"prompt": "b"}], "runs": 2},
            "guidance scales",
        ),
    ],
)
def test_what_does_not_fit_a_pipeline_is_named(
    name: str, change: dict[str, Any], message: str, build: Callable[..., Any], tmp_path: Path
) -> None:
    arguments = {"runs": 1, "steps": 2, "batch_size": 2, **change}
    with pytest.raises(InputError, match=message):
        record(build(name), tmp_path / "a.zarr", **arguments)
    assert not (tmp_path / "a.zarr").exists()


def test_a_pipeline_of_pixels_takes_no_prompts(tiny_pipeline: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes no prompts"):
        record(tiny_pipeline, tmp_path / "a.zarr", prompts=["a"], steps=2)
