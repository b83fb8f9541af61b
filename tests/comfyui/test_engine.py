"""The node pack in ComfyUI's own engine: what is recorded, found and corrected in its samplers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from asced_analysis.calibration import calibrate
from asced_analysis.detection.apply import detect
from asced_analysis.thresholds.document import Thresholds
from asced_recorders.comfyui.correcting import Correct, Report
from asced_recorders.comfyui.levels import noise_level
from asced_recorders.comfyui.listening import Sampling, listen
from asced_recorders.comfyui.recording import recording
from asced_recorders.tap.events import StepEvent, TapListener
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError

STEPS, BATCH = 12, 10
LASTS = ("euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "er_sde", "sa_solver_pece")
LOSES = ("lms", "ipndm", "deis", "gradient_estimation", "sa_solver", "unipc")


def sample(model: Any, seed: int, sampler: str, cfg: float, steps: int = STEPS, **more: Any) -> Any:
    import comfy.sample

    latent = torch.zeros(BATCH, 4, 8, 8)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randn((1, 3, 16), generator=generator) for _ in range(2)]
    positive, negative = ([[prompt, {}]] for prompt in prompts)
    noise = comfy.sample.prepare_noise(latent, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return comfy.sample.sample(
            model, noise, steps, cfg, sampler, "normal", positive, negative, latent,
            seed=seed, disable_pbar=True, **more,
        )  # fmt: skip


def recorded(model: Any, path: Path) -> Any:
    def attach(sampling: Sampling) -> Any:
        return recording(sampling, path)

    return listen(model, attach)


def few(path: Path) -> Thresholds:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few runs
        return calibrate(path, "calibrated", false_alarm_rate=0.5)


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("EPS", (1.0, 0.7)),
        ("V_PREDICTION", (1.0, 0.7)),
        ("V_PREDICTION_EDM", (1.0, 0.7)),
        ("STABLE_CASCADE", (1.0, 0.7)),
        ("EDM", (1.0, 0.7)),
        ("V_PREDICTION_CONTINUOUS", (1.0, 0.7)),
        ("FLOW", (0.3, 0.7)),
        ("FLUX", (0.3, 0.7)),
        ("FLOW_COSMOS", (1.0, 0.7)),
    ],
)
def test_a_level_is_that_of_the_engine_s_own_noising(
    kind: str, level: tuple[float, float], tiny: Callable[..., Any]
) -> None:
    sampling = tiny(kind).get_model_object("model_sampling")
    assert noise_level(sampling, 0.7) == pytest.approx(level)
    x0, eps = torch.randn(2, 1, 4, 8, 8)
    noised = sampling.noise_scaling(torch.tensor([0.7]), eps.clone(), x0)
    assert torch.allclose(noised, level[0] * x0 + level[1] * eps, atol=1e-6)


def test_a_kind_without_noise_is_refused_by_name(tiny: Callable[..., Any]) -> None:
    model = tiny("IMG_TO_IMG")
    with pytest.raises(InputError, match="IMG_TO_IMG"):
        sample(listen(model, lambda sampling: nullcontext(TapListener())), 1, "euler", 1.0)


@pytest.mark.parametrize(
    ("kind", "sampler", "cfg"),
    [
        *[("EPS", name, 1.0) for name in LASTS],
        ("EPS", "heun", 4.0),
        ("EPS", "euler_cfg_pp", 2.0),
        ("FLOW", "euler", 4.0),
        ("FLOW", "dpmpp_2m", 1.0),
    ],
)
def test_flags_are_those_of_the_store(
    kind: str, sampler: str, cfg: float, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    model, path = tiny(kind), tmp_path / "runs.zarr"
    plain = sample(model, 1, sampler, cfg)
    watched = recorded(model, path)
    ends = [sample(watched, seed, sampler, cfg) for seed in (1, 2, 3)]
    assert (ends[0] == plain).all()
    runs = open_runs(path)
    assert runs.sizes["run"] == 3 * BATCH
    assert runs.sizes["step"] == STEPS
    known = model.model.process_latent_in(torch.cat(ends)).numpy()
    np.testing.assert_allclose(runs["sample"].values, known, rtol=1e-5, atol=1e-5)
    start = (
        np.asarray(runs["alpha"])[0] * runs["x0"][:, 0]
        + np.asarray(runs["sigma"])[0] * (runs["eps"][:, 0])
    )
    np.testing.assert_allclose(start, runs["x_init"], rtol=2e-3, atol=2e-2)

    thresholds = few(path)
    batches = detect(runs, thresholds)["flagged"].values.reshape(3, BATCH)
    mixed = int(np.flatnonzero(batches.any(1) & ~batches.all(1))[0])
    flagged = batches[mixed]
    corrected, found = Correct().correct(model, thresholds)
    twice = recorded(corrected, tmp_path / "corrected.zarr")
    end = sample(twice, 1 + mixed, sampler, cfg)
    assert [one.flagged for one in found.images] == flagged.tolist()
    assert ((end != ends[mixed]).flatten(1).any(1).numpy() == flagged).all()
    kept = open_runs(tmp_path / "corrected.zarr")
    assert (kept["flagged"].values == flagged).all()
    assert kept.attrs["correction"]["strategy"] == thresholds.correction.strategy
    again = detect(kept.drop_vars(["flagged", "score", "mask"]), thresholds)
    assert (again["flagged"].values == flagged).all()
    np.testing.assert_allclose(
        again["score"].values, [one.score for one in found.images], rtol=1e-5, atol=1e-5
    )


class Edit(TapListener):
    """Replaces the sample entering a step, and keeps the noise that every step finds."""

    def __init__(self, step: int, noise: Any) -> None:
        self.step, self.noise = step, noise
        self.eps: list[Any] = []

    def before_step(self, event: StepEvent) -> None:
        self.eps.append(event.eps)

    def after_step(self, event: StepEvent, next_sample: Any) -> Any:
        if event.step + 1 != self.step:
            return None
        return event.next_alpha * event.x0 + event.next_sigma * self.noise


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("sampler", LASTS)
def test_an_edit_lasts(sampler: str, kind: str, tiny: Callable[..., Any]) -> None:
    """With a model that knows x0, what later steps find is noise of their level, and none old."""
    x0, noise = torch.randn((2, BATCH, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    edit = Edit(6, noise)
    model = tiny(kind)
    model.set_model_unet_function_wrapper(lambda apply, given: x0.to(given["input"]))
    sample(listen(model, lambda sampling: nullcontext(edit)), 1, sampler, 1.0)
    assert torch.allclose(edit.eps[6], noise, atol=1e-4)
    for eps in edit.eps[7:]:
        assert float(eps.square().mean().sqrt()) == pytest.approx(1, abs=0.1)
        assert abs(float((eps * edit.eps[5]).mean())) < 0.1


@pytest.mark.parametrize("sampler", LOSES)
def test_samplers_in_which_no_edit_lasts_are_refused_before_they_begin(
    sampler: str, tiny: Callable[..., Any], thresholds: Thresholds
) -> None:
    model = tiny("EPS")
    asked: list[int] = []
    model.model.diffusion_model.register_forward_hook(lambda *_: asked.append(1))
    corrected = Correct().correct(model, thresholds)[0]
    name = {"unipc": "uni_pc"}.get(sampler, sampler)
    with pytest.raises(InputError, match=f"{sampler}.* would last"):
        sample(corrected, 1, name, 1.0)
    assert not asked


def test_what_has_no_schedule_or_no_end_is_refused(
    tiny: Callable[..., Any], thresholds: Thresholds, tmp_path: Path
) -> None:
    model = tiny("EPS")
    with pytest.raises(InputError, match="dpm_adaptive chooses its steps"):
        sample(recorded(model, tmp_path / "a.zarr"), 1, "dpm_adaptive", 1.0)
    with pytest.raises(InputError, match="with noise left"):
        sample(recorded(model, tmp_path / "b.zarr"), 1, "euler", 1.0, last_step=6)
    with pytest.raises(InputError, match="before the correction"):
        sample(Correct().correct(model, thresholds)[0], 1, "euler", 1.0, last_step=3)
    mask = torch.ones(1, 1, 8, 8)
    with pytest.raises(InputError, match="inpainting mask"):
        sample(Correct().correct(model, thresholds)[0], 1, "euler", 1.0, noise_mask=mask)
    path = tmp_path / "c.zarr"
    model = recorded(model, path)
    sample(model, 1, "euler", 1.0)
    with pytest.raises(InputError, match="other settings"):
        sample(model, 1, "heun", 1.0)
    sample(model, 2, "euler", 1.0)
    assert TrajectoryStore.open(path).committed_batches() == [0, 1]


def test_a_copied_model_reports_to_the_same_place(
    tiny: Callable[..., Any], thresholds: Thresholds
) -> None:
    """Nodes after Correct clone the model, with deep copies of what it holds."""
    corrected, found = Correct().correct(tiny("EPS"), thresholds)
    sample(corrected.clone().clone(), 1, "euler", 1.0)
    _latent, masks, text = Report().report({}, found)
    assert len(found.images) == BATCH
    assert masks.shape == (BATCH, 8, 8)
    assert text.count("image ") == BATCH


@pytest.fixture(scope="module")
def thresholds(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Thresholds:
    path = tmp_path_factory.mktemp("comfyui") / "runs.zarr"
    model = recorded(tiny("EPS"), path)
    for seed in (1, 2, 3):
        sample(model, seed, "euler", 1.0)
    return few(path)
