"""Replay and correction of runs that began with a picture: img2img and both kinds of inpainting."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_pipelines
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from newer_families import FAMILIES, qwen
from PIL import Image

from asced_analysis.correction import Corrector
from asced_analysis.evaluation import evaluate
from asced_analysis.replay import Branch, branch, exactness, replay
from asced_recorders import Recorder
from asced_recorders.pipelines.sampling import run_generators
from asced_stores import open_runs
from asced_stores.errors import InputError

PICTURE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))
PAINTED = torch.zeros(1, 1, 16, 16)
PAINTED[..., 4:12, 4:12] = 1  # what inpainting fills in: latents 2 to 5
CASES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "img2img": (("Img2Img",), {"image": PICTURE, "strength": 0.75}),
    "inpaint": (("Inpaint",), {"image": PICTURE, "mask_image": PAINTED}),
    "inpaint, 9 channels": (("Inpaint", 9), {"image": PICTURE, "mask_image": PAINTED}),
}


def recorded(case: str, path: Path) -> dict[str, Any]:
    """One tiny pipeline with two runs, and how to call it again."""
    torch.manual_seed(0)
    kind, arguments = CASES[case]
    pipe = tiny_pipelines.stable_diffusion(*kind)
    pipe.set_progress_bar_config(disable=True)
    size = {} if case == "img2img" else {"height": 16, "width": 16}

    def call(pipe: Any, batch: Any) -> Any:
        return pipe(
            prompt=["a cat", "a dog"],
            **arguments,
            **size,
            generator=run_generators([int(seed) for seed in batch.seeds]),
            num_inference_steps=8,
            output_type="latent",
        )

    with Recorder(pipe, path, checkpoints=(3,)):
        call(pipe, SimpleNamespace(seeds=[5, 6]))
    return {"pipeline": pipe, "call": call}


@pytest.mark.parametrize("case", CASES)
def test_runs_that_began_with_a_picture_come_back(case: str, tmp_path: Path) -> None:
    options = recorded(case, tmp_path / "r.zarr")
    again = replay(tmp_path / "r.zarr", tmp_path / "n.zarr", strategy="none", **options)
    assert exactness(again).sentence() == "2 of 2 uncorrected runs came back bit for bit"
    assert again.spec.sample_shape == (4, 8, 8)
    part = replay(tmp_path / "r.zarr", tmp_path / "p.zarr", strategy="none", start=3, **options)
    assert exactness(part).bit_exact


@pytest.mark.parametrize("case", CASES)
def test_runs_that_began_with_a_picture_are_corrected(case: str, tmp_path: Path) -> None:
    options = recorded(case, tmp_path / "r.zarr")
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    given: dict[str, Any] = {"masks": {1: mask}, "step": 4, **options}
    replayed = replay(tmp_path / "r.zarr", tmp_path / "c.zarr", **given)
    ds, plain = open_runs(replayed.path), open_runs(tmp_path / "r.zarr")
    assert (ds["difference"].values > 0).tolist() == [False, True]
    away = np.abs(ds["sample"].values - plain["sample"].values)[1].max(0)
    assert away[mask].mean() > 2 * away[~mask].mean()
    if case == "inpaint":  # what is not painted is the picture's, corrected or not
        outside = PAINTED[0, 0, ::2, ::2].numpy() == 0
        assert (away[outside] == 0).all()
    part = replay(tmp_path / "r.zarr", tmp_path / "p.zarr", start=3, **given)
    assert (open_runs(part.path)["sample"].values == ds["sample"].values).all()
    corrector = Corrector(None, step=4)
    corrector.assign([0, 1], masks=np.stack([mask & False, mask]))
    with corrector.attach(options["pipeline"]):
        live = options["call"](options["pipeline"], SimpleNamespace(seeds=[5, 6])).images
    assert (np.asarray(live) == ds["sample"].values).all()  # as deployment does


@pytest.mark.parametrize(
    ("module", "kind", "images"),
    [(pipeline_qwenimage_edit, "Edit", 1), (pipeline_qwenimage_edit_plus, "EditPlus", 2)],
    ids=["edit", "edit plus"],
)
def test_edits_of_pictures_come_back_and_are_corrected(
    module: Any, kind: str, images: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = module.calculate_dimensions  # the pipelines enlarge what they are given to 1024 x 1024
    monkeypatch.setattr(module, "calculate_dimensions", lambda _, ratio: fit(32 * 32, ratio))
    pipe = qwen(kind, processor=None)
    pixels = PICTURE[0].permute(1, 2, 0).numpy()
    one = Image.fromarray((255 * pixels).astype(np.uint8))
    image = one if images == 1 else [one] * images
    call = {"image": image, "true_cfg_scale": 2.0, **FAMILIES["qwen"].call}
    with Recorder(pipe, tmp_path / "r.zarr", checkpoints=(1,)):
        generator = torch.Generator().manual_seed(7)
        shown = pipe(**call, num_inference_steps=3, generator=generator, output_type="np").images
    recorded = open_runs(tmp_path / "r.zarr")
    assert recorded["sample"].shape == (1, 4, 4, 4)  # of the edit, without the pictures' tokens
    np.testing.assert_allclose(recorded["image"].values / 255, shown, atol=1 / 255)
    with pytest.raises(InputError, match="the store does not hold image"):
        replay(tmp_path / "r.zarr", tmp_path / "n.zarr", strategy="none", pipeline=pipe)
    given: dict[str, Any] = {"pipeline": pipe, "call_options": {"image": image}}
    again = replay(tmp_path / "r.zarr", tmp_path / "n.zarr", strategy="none", **given)
    assert exactness(again).bit_exact
    np.testing.assert_array_equal(open_runs(again)["image"].values, recorded["image"].values)
    masks = {0: np.eye(4, dtype=bool)}
    replayed = replay(tmp_path / "r.zarr", tmp_path / "c.zarr", masks=masks, step=1, **given)
    branched = branch(tmp_path / "r.zarr", tmp_path / "b.zarr", [Branch(1)], masks=masks, **given)
    corrected = open_runs(replayed)["sample"].values
    assert (corrected != recorded["sample"].values).any()
    np.testing.assert_allclose(
        open_runs(branched)["branch_sample"].values[:, 0], corrected, 0.0, 1e-5
    )


def test_evaluation_and_branches_are_given_what_the_store_does_not_hold(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pipe = tiny_pipelines.stable_diffusion("Img2Img")
    pipe.set_progress_bar_config(disable=True)
    pictures = torch.rand(10, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    path = tmp_path / "r.zarr"
    with Recorder(pipe, path, checkpoints=(2,)):
        for begin in (0, 5):
            pipe(
                prompt=["a cat"] * 5,
                image=pictures[begin : begin + 5],
                strength=0.9,
                num_inference_steps=5,
                generator=run_generators(list(range(begin, begin + 5))),
                output_type="np",
            )
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    given: dict[str, Any] = {
        "pipeline": pipe,
        "call_options": {"image": lambda batch: pictures[batch.runs]},
    }
    masks = dict.fromkeys((1, 3, 7, 8), mask)
    replayed = replay(path, tmp_path / "c.zarr", masks=masks, step=2, **given)
    assert exactness(replayed).bit_exact
    data = evaluate(path, replayed, judge="patches", **given).to_dict()
    assert set(data["controls"]) == {"shuffled", "foreground", "everywhere"}
    with pytest.raises(InputError, match="the store does not hold image"):
        evaluate(path, replayed, judge="patches", pipeline=pipe)
    branched = open_runs(
        branch(path, tmp_path / "b.zarr", [Branch(step=2)], masks=masks, **given).path
    )
    alone = open_runs(replayed.path)["sample"].sel(run=[1, 3, 7, 8]).values
    np.testing.assert_allclose(branched["branch_sample"].values[:, 0], alone, atol=1e-3)
