"""Remedies: what is tried on whose pipeline, at what price, and what is said of it."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import PyramidAttentionBroadcastConfig
from tiny_pipelines import stable_diffusion, wan

import asced_analysis as aa
from asced_analysis import plots
from asced_analysis.evaluation import Remedies, try_remedies
from asced_analysis.evaluation.remedies.kinds import (
    Remedy,
    RemedyContext,
    Skipped,
    other_samplers,
)
from asced_analysis.replay.other_settings import draw_runs
from asced_analysis.replay.recording import Recording
from asced_analysis.report import build_page
from asced_recorders import record
from asced_stores import open_runs
from asced_stores.errors import InputError
from asced_stores.files import write_json

RUNS, STEPS, BUDGET = 8, 6, 12


@pytest.fixture(scope="module")
def colour(make_tiny: Callable[..., Any]) -> Any:
    return make_tiny("DDIM", 3, timestep_spacing="trailing")


@pytest.fixture(scope="module")
def colour_runs(colour: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("remedies") / "colour.zarr"
    record(colour, path, runs=48, steps=STEPS, batch_size=24, seed=5)
    return path


@pytest.fixture(scope="module")
def found(colour: Any, colour_runs: Path) -> Remedies:
    thresholds = aa.calibrate(colour_runs, "calibrated")
    return try_remedies(
        colour_runs, thresholds=thresholds, budget=BUDGET, runs=RUNS, pipeline=colour
    )


def test_every_kind_is_tried_and_its_price_is_counted(found: Remedies) -> None:
    price = {one.title: one.evaluations for one in found.trials}
    assert price.pop("plain, 6 steps") == STEPS
    assert price["12 steps"] == BUDGET
    assert price["noise normalisation, 12 steps"] == BUDGET
    assert {"DDPM (ancestral), 12 steps", "EulerAncestralDiscrete (ancestral), 12 steps"} <= set(
        price
    )
    assert price["correction ttc of flagged runs, 6 steps"] == STEPS
    heun = price["HeunDiscrete (second order), 6 steps"]
    assert STEPS < heun <= BUDGET
    (pruned,) = (value for title, value in price.items() if title.startswith("pruning"))
    assert STEPS < pruned <= BUDGET


def test_the_winner_is_confirmed_on_seeds_that_were_not_chosen_on(found: Remedies) -> None:
    assert found.confirmed[0].title == "plain, 6 steps"
    assert found.confirmed[-1].title == found.best
    assert found.chooser == found.judge == "patches"
    assert found.reference.kind == "population"
    assert found.code
    assert found.confirmed[0].broken.value == pytest.approx(0.25)


def test_what_is_tried_is_what_sampling_gives(colour: Any, colour_runs: Path) -> None:
    """Plain runs of a remedy are those that a recording of the same seeds holds."""
    recording = Recording(colour_runs)
    seeds = np.arange(5, 9)
    drawn = draw_runs(recording, colour, np.arange(4), seeds, steps=STEPS)
    recorded = open_runs(colour_runs)["sample"].values[:4]
    np.testing.assert_allclose(drawn.ends, recorded, atol=1e-4)
    assert drawn.rows == STEPS


def test_nothing_helps_a_model_of_random_weights_and_that_is_said(found: Remedies) -> None:
    assert not found.helps
    assert found.verdict().startswith("Nothing is shown to beat plain sampling within 12")


def test_a_file_of_it_is_drawn_and_reported(
    found: Remedies, colour_runs: Path, tmp_path: Path
) -> None:
    path = write_json(tmp_path / "remedies.json", found.to_dict())
    again = Remedies.load(path)
    assert again == found
    ax = plots.remedies(again)
    assert len(ax.get_yticklabels()) == len(found.trials) + len(found.confirmed)
    ds = open_runs(colour_runs)
    phases = aa.segment_phases(ds, replicates=99, run_replicates=0)
    statistics = aa.step_statistics(ds)
    page = build_page(ds, name="r", phases=phases, statistics=statistics, remedies=again)
    (section,) = (one for one in page.sections if one.title == "What helps at this cost")
    assert section.paragraphs[0] == found.verdict()
    with pytest.raises(InputError, match="is no table of remedies"):
        Remedies.load(write_json(tmp_path / "other.json", {"format": "other"}))


def test_a_called_pipeline_keeps_its_prompts_and_guidance(tmp_path: Path) -> None:
    pipe = stable_diffusion()
    path = tmp_path / "prompts.zarr"
    prompts = ["a red cat", "a blue dog"]
    record(pipe, path, prompts=prompts, runs=8, steps=4, batch_size=4, guidance_scale=3.0)
    found = try_remedies(path, budget=5, runs=8, pipeline=pipe)
    titles = [one.title for one in found.trials]
    assert "guidance 4.5 instead of 3, 5 steps" in titles
    assert set(found.skipped) == {"corrections", "pruning"}
    assert {one.evaluations for one in found.trials} >= {4.0, 5.0}


def test_a_cache_that_holds_the_pipeline_leaves_other_samplers_out_and_says_so(
    found: Remedies, colour_runs: Path
) -> None:
    pipe = wan()
    pipe.transformer.enable_cache(
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            current_timestep_callback=lambda: pipe.current_timestep,
        )
    )
    recording = Recording(colour_runs)
    (left_out,) = other_samplers(RemedyContext(recording, pipe, BUDGET))
    assert isinstance(left_out, Skipped)
    assert left_out.title == "other samplers"
    assert "PyramidAttentionBroadcastConfig" in left_out.reason
    assert "disable_cache()" in left_out.reason
    pipe.transformer.disable_cache()
    assert all(
        isinstance(one, Remedy) for one in other_samplers(RemedyContext(recording, pipe, BUDGET))
    )
    shown = replace(found, skipped={left_out.title: left_out.reason})
    assert f"Not tried: other samplers: {html.escape(left_out.reason)}." in shown._repr_html_()


def test_what_cannot_be_tried_is_refused_before_anything_is_drawn(
    colour: Any, colour_runs: Path
) -> None:
    with pytest.raises(InputError, match="a budget of 3 evaluations is below the 6 steps"):
        try_remedies(colour_runs, budget=3, pipeline=colour)
    with pytest.raises(InputError, match="runs is 2: at least 8"):
        try_remedies(colour_runs, runs=2, pipeline=colour)
