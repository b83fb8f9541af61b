"""``asced audit`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import pytest

import asced_analysis as aa
from asced_analysis import plots
from asced_cli.main import run
from asced_recorders import Recorder

from .conftest import Exact, LatentLoop


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[Path, Path]:
    """Sound runs, and runs whose output is read as the wrong type."""
    import torch

    folder = tmp_path_factory.mktemp("audited")
    paths = []
    for kind in ("epsilon", "v_prediction"):
        scheduler = diffusers.DDIMScheduler(
            prediction_type=kind, clip_sample=False, timestep_spacing="trailing"
        )
        pipe = LatentLoop(Exact(), scheduler)
        pipe.set_progress_bar_config(disable=True)
        paths.append(folder / f"{kind}.zarr")
        with Recorder(pipe, paths[-1]):
            own = [torch.Generator().manual_seed(run) for run in range(24)]
            pipe(batch_size=24, generator=own, num_inference_steps=8)
    return paths[0], paths[1]


def test_sound_runs_end_with_status_0_and_a_table(stores, capsys):
    assert run(["audit", str(stores[0])]) == 0
    printed = capsys.readouterr().out
    assert "energy of x" in printed
    assert "nothing found in 24 runs" in printed


def test_a_finding_ends_with_status_1_its_cause_and_a_picture(stores, tmp_path, capsys):
    plot = tmp_path / "audit.png"
    assert run(["audit", str(stores[1]), "--plot", str(plot)]) == 1
    printed = capsys.readouterr().out
    assert "FOUND path" in printed
    assert "likely cause: the network's output looks like noise" in printed
    assert plot.stat().st_size > 5000
    assert run(["audit", str(stores[1]), "--plot", str(plot)]) == 2  # it exists


def test_for_machines(stores, capsys):
    assert run(["audit", str(stores[1]), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["findings"][0]["name"] == "path"
    assert len(found["steps"]["energy"]) == 8
    assert found["steps"]["next_noise"][-1] is None
    assert not found["sound"]


def test_the_picture_shows_the_tolerance_and_the_findings(stores):
    ax = plots.audit_curves(aa.audit(aa.open_runs(stores[1])))
    labels = ax.get_legend_handles_labels()[1]
    assert "tolerance (energy)" in labels
    assert "found: path" in labels
