"""Training the model of SIMPLE SHAPES."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from asced_recorders import load_pipeline
from asced_stores.errors import InputError
from experiments.correction import shapes_set
from experiments.models.shapes import train as train_shapes


def train(monkeypatch: pytest.MonkeyPatch, folder: Path, *more: str) -> None:
    given = f"--steps 4 --batch-size 2 --work {folder / 'work'} --out {folder / 'model'}".split()
    monkeypatch.setattr(sys, "argv", ["train_shapes.py", *given, *more])
    train_shapes.main()


def test_interrupted_it_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = np.tile(train_shapes.draw_images(8, seed=0), (8, 1, 1, 1))
    monkeypatch.setattr(train_shapes, "draw_images", lambda: few)
    threads = torch.get_num_threads()
    train(monkeypatch, tmp_path / "whole")
    clock = itertools.count()
    ticking = SimpleNamespace(monotonic=lambda: float(next(clock)))
    with monkeypatch.context() as patched:
        patched.setattr(train_shapes, "time", ticking)
        with pytest.raises(SystemExit, match="stopped at step 2 of 4"):
            train(patched, tmp_path / "parts", "--seconds", "3")
    assert not (tmp_path / "parts" / "model").exists()
    train(monkeypatch, tmp_path / "parts")
    whole, parts = (
        load_pipeline(tmp_path / name / "model").unet.state_dict() for name in ("whole", "parts")
    )
    torch.set_num_threads(threads)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    scheduler = load_pipeline(tmp_path / "whole" / "model").scheduler
    assert scheduler.config.prediction_type == "v_prediction"


def test_a_missing_model_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes_set, "FOLDER", tmp_path)
    with pytest.raises(InputError, match=r"python -m experiments\.models\.shapes\.train"):
        shapes_set.measure(SimpleNamespace(cache=tmp_path, say=print), 8)


def test_pictures_are_what_the_model_draws_folded() -> None:
    from diffusers import DDIMPipeline

    from experiments.datasets.shapes import unfold
    from experiments.models.shapes.pictures import FOLDER, pipeline

    pictures, folded = pipeline(), DDIMPipeline.from_pretrained(FOLDER).to(torch.float32)
    noise = torch.randn(2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = folded.unet(noise, 500).sample.numpy()
        found = pictures.unet(torch.from_numpy(unfold(noise.numpy())), 500).sample
    assert pictures.unet.config.sample_size == 64
    assert found.shape == (2, 1, 64, 64)
    np.testing.assert_allclose(found.numpy(), unfold(expected), atol=1e-5)
