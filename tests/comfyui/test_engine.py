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
from asced_analysis.comfyui.correcting import Correct, Report
from asced_analysis.detection.apply import detect
from asced_analysis.thresholds.document import Thresholds
from asced_recorders.comfyui.levels import noise_level
from asced_recorders.comfyui.listening import Sampling, listen
from asced_recorders.comfyui.recording import recording
from asced_recorders.tap.events import StepEvent, TapListener
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError

STEPS, BATCH = 12, 10
LASTS = ("euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "er_sde", "sa_solver_pece")
AGAIN = ("lms", "ipndm", "deis", "gradient_estimation", "uni_pc", "uni_pc_bh2")
LOSES = ("sa_solver", "ipndm_v", "gradient_estimation_cfg_pp")


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
        *[("EPS", name, 1.0) for name in (*LASTS, *AGAIN)],
        ("EPS", "heun", 4.0),
        ("EPS", "euler_cfg_pp", 2.0),
        ("FLOW", "euler", 4.0),
        ("FLOW", "dpmpp_2m", 1.0),
        ("FLOW", "deis", 4.0),
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
        self.events: list[StepEvent] = []

    def before_step(self, event: StepEvent) -> None:
        self.eps.append(event.eps)
        self.events.append(event)

    def after_step(self, event: StepEvent, next_sample: Any) -> Any:
        if event.step + 1 != self.step:
            return None
        return event.next_alpha * event.x0 + event.next_sigma * self.noise


def edited(model: Any, edit: Edit, sampler: str, **more: Any) -> Any:
    """Sample with a listener that edits, in the way that the sampler needs."""

    def attach(sampling: Sampling) -> Any:
        sampling.check_edits([edit.step])
        assert sampling.again == (sampler in AGAIN)
        return nullcontext(edit)

    return sample(listen(model, attach), 1, sampler, 1.0, **more)


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
@pytest.mark.parametrize("sampler", LASTS + AGAIN)
def test_an_edit_lasts(sampler: str, kind: str, tiny: Callable[..., Any]) -> None:
    """With a model that knows x0, what later steps find is noise of their level, and none old."""
    x0, noise = torch.randn((2, BATCH, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    edit = Edit(6, noise)
    model = tiny(kind)
    model.set_model_unet_function_wrapper(lambda apply, given: x0.to(given["input"]))
    edited(model, edit, sampler)
    assert torch.allclose(edit.eps[6], noise, atol=1e-4)
    for eps in edit.eps[7:]:
        assert float(eps.square().mean().sqrt()) == pytest.approx(1, abs=0.1)
        assert abs(float((eps * edit.eps[5]).mean())) < 0.1
    if sampler in AGAIN:  # no noise comes on the way: it is the edit's own to the end
        assert float((edit.eps[-1] - noise).square().mean().sqrt()) < 0.02


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "lms", "deis", "gradient_estimation"])
def test_a_sampler_forgets_what_was_before_an_edit(sampler: str, tiny: Callable[..., Any]) -> None:
    """A multistep sampler's step after an edit is the one of first order, as after a start."""
    edit = Edit(6, torch.randn((BATCH, 4, 8, 8), generator=torch.Generator().manual_seed(5)))
    steps: list[int] = []
    edited(tiny("EPS"), edit, sampler, callback=lambda step, *_: steps.append(step))
    assert steps == list(range(STEPS))  # each once, though a sampler may be run again
    assert len(edit.events) == STEPS
    before, here, after = edit.events[5:8]
    share = here.next_sigma / here.sigma
    expected = share * here.sample + (1 - share) * here.x0
    assert torch.allclose(after.sample, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before.x0, here.x0, atol=0.1)


@pytest.mark.parametrize("sampler", LOSES)
def test_samplers_in_which_no_edit_lasts_are_refused_before_they_begin(
    sampler: str, tiny: Callable[..., Any], thresholds: Thresholds
) -> None:
    model = tiny("EPS")
    asked: list[int] = []
    model.model.diffusion_model.register_forward_hook(lambda *_: asked.append(1))
    corrected = Correct().correct(model, thresholds)[0]
    with pytest.raises(InputError, match=f"{sampler}.* would last"):
        sample(corrected, 1, sampler, 1.0)
    assert not asked


def test_a_sampler_that_is_run_again_asks_the_model_no_more(
    tiny: Callable[..., Any],
) -> None:
    """Twice edited, one image of ten: the others are what they were, to the bit."""
    model = tiny("EPS")
    plain = sample(model, 1, "lms", 1.0)
    asked: list[int] = []
    model.model.diffusion_model.register_forward_hook(lambda *_: asked.append(1))

    class Twice(Edit):
        def after_step(self, event: StepEvent, next_sample: Any) -> Any:
            changed = next_sample.clone()
            if event.step + 1 in (self.step, self.step + 2):
                changed[3] = event.next_alpha * event.x0[3] + event.next_sigma * self.noise[3]
            self.entered = changed
            return changed

        def before_step(self, event: StepEvent) -> None:
            super().before_step(event)
            assert event.step == 0 or torch.allclose(event.sample, self.entered, atol=1e-4)

    edit = Twice(4, torch.randn((BATCH, 4, 8, 8), generator=torch.Generator().manual_seed(5)))
    end = edited(model, edit, "lms")
    assert len(asked) == STEPS
    assert ((end != plain).flatten(1).any(1).numpy() == (np.arange(BATCH) == 3)).all()
    here, after = edit.events[6:8]
    share = here.next_sigma / here.sigma  # nothing of what was before either edit
    expected = share * here.sample[3] + (1 - share) * here.x0[3]
    assert torch.allclose(after.sample[3], expected, rtol=1e-4, atol=1e-4)


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


def test_samplers_of_other_packs_are_treated_alike(
    tiny: Callable[..., Any], thresholds: Thresholds, tmp_path: Path
) -> None:
    """By what they do: one that works in place, one that changes the size, one without a word."""
    from comfy_extras.nodes_advanced_samplers import sample_lcm_upscale

    def in_place(model: Any, x: Any, sigmas: Any, extra_args: Any, callback: Any, **_: Any) -> Any:
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones(len(x)), **extra_args)
            if callback is not None:
                callback({"x": x, "i": i, "denoised": denoised})
            x = denoised
            x += sigmas[i + 1] * torch.randn(x.shape, generator=torch.Generator().manual_seed(i))
        return x

    def silent(model: Any, x: Any, sigmas: Any, extra_args: Any, **_: Any) -> Any:
        return model(x, sigmas[0] * x.new_ones(len(x)), **extra_args)

    model = tiny("EPS")
    model.set_model_unet_function_wrapper(lambda apply, given: 0 * given["input"])
    edit = Edit(6, torch.randn(BATCH, 4, 8, 8))
    custom(listen(model, lambda sampling: nullcontext(edit)), in_place)
    assert torch.allclose(edit.eps[6], edit.noise, atol=1e-4)
    assert float(edit.eps[7].std()) == pytest.approx(1, abs=0.1)
    with pytest.raises(InputError, match="lcm_upscale changes the sample's size"):
        custom(recorded(model, tmp_path / "a.zarr"), sample_lcm_upscale)
    with pytest.raises(InputError, match="silent does not say when"):
        custom(recorded(model, tmp_path / "a.zarr"), silent)


def custom(model: Any, function: Any, guider: Any = None) -> Any:
    """Sample with a function, as ComfyUI's SamplerCustom does."""
    import comfy.samplers

    latent = torch.zeros(BATCH, 4, 8, 8)
    sigmas = comfy.samplers.calculate_sigmas(
        model.get_model_object("model_sampling"), "normal", STEPS
    )
    guider = comfy.samplers.CFGGuider(model) if guider is None else guider
    if guider.original_conds == {}:
        prompt = [[torch.ones(1, 3, 16), {}]]
        guider.set_conds(prompt, prompt)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    return guider.sample(
        noise, latent, comfy.samplers.KSAMPLER(function), sigmas, disable_pbar=True, seed=1
    )


@pytest.mark.parametrize("nested", [False, True])
def test_what_is_recorded_is_what_the_sampler_got(
    nested: bool, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """Guiders of two prompts add to the prediction after the post-CFG functions have run."""
    from comfy.k_diffusion.sampling import sample_euler
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    path = tmp_path / "runs.zarr"
    guider = Guider_DualCFG(recorded(tiny("EPS"), path))
    guider.set_conds(*([[torch.full((1, 3, 16), value), {}]] for value in (1.0, 0.5, 0.0)))
    guider.set_cfg(3.0, 2.0, nested)
    custom(guider.model_patcher, sample_euler, guider)
    runs = open_runs(path)
    sigma = np.append(runs["sigma"].values, 0)
    x = runs["x_init"].values
    for step in range(STEPS):
        x0 = runs["x0"].values[:, step].astype("f4")
        x = x + (x - x0) / sigma[step] * (sigma[step + 1] - sigma[step])
    np.testing.assert_allclose(x, runs["sample"].values, rtol=5e-3, atol=5e-3)


def test_video_has_its_frames_before_its_channels(tiny: Callable[..., Any], tmp_path: Path) -> None:
    import comfy.sample

    model = tiny("FLOW")
    model.set_model_unet_function_wrapper(lambda apply, given: 0.5 * given["input"])
    latent, path = torch.zeros(2, 4, 3, 8, 8), tmp_path / "runs.zarr"
    noise = comfy.sample.prepare_noise(latent, 1)
    prompt = [[torch.ones(1, 3, 16), {}]]
    end = comfy.sample.sample(
        recorded(model, path), noise, 4, 1.0, "euler", "normal", prompt, prompt, latent, seed=1,
        disable_pbar=True,
    )  # fmt: skip
    runs = open_runs(path)
    assert dict(runs["sample"].sizes) == {"run": 2, "frame": 3, "channel": 4, "y": 8, "x": 8}
    known = model.model.process_latent_in(end).transpose(1, 2).numpy()
    np.testing.assert_allclose(runs["sample"].values, known, atol=1e-5)
    edit = Edit(2, torch.ones(2, 3, 4, 8, 8))
    comfy.sample.sample(
        listen(model, lambda sampling: nullcontext(edit)), noise, 4, 1.0, "euler", "normal", prompt,
        prompt, latent, seed=1, disable_pbar=True,
    )  # fmt: skip
    assert edit.eps[2].shape == edit.noise.shape


class Changes(TapListener):
    """Changes what the model said of one step, and asks it once more."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.said: list[Any] = []

    def before_step(self, event: StepEvent) -> Any:
        again = self.sampling.ask(event.sample, event.table, event.step)
        assert torch.allclose(again, event.x0, atol=1e-5)
        self.said.append(event.x0)
        return 0 * event.x0 if event.step == 5 else None


def test_what_the_model_said_can_be_changed_and_asked_again(tiny: Callable[..., Any]) -> None:
    heard: list[Any] = []

    def attach(sampling: Sampling) -> Any:
        heard.append(Changes(sampling))
        return nullcontext(heard[0])

    model = tiny("FLOW")
    end = sample(listen(model, attach), 1, "dpmpp_2m", 4.0)
    assert len(heard[0].said) == STEPS
    assert (end != sample(model, 1, "dpmpp_2m", 4.0)).any()


def test_a_guider_past_the_wrappers_is_an_error(tiny: Callable[..., Any], tmp_path: Path) -> None:
    import comfy.samplers
    from comfy.k_diffusion.sampling import sample_euler

    class Direct(comfy.samplers.CFGGuider):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.predict_noise(*args, **kwargs)

    model = recorded(tiny("EPS"), tmp_path / "runs.zarr")
    with pytest.raises(InputError, match=r"0 of 12 steps .* Direct calls the model"):
        custom(model, sample_euler, Direct(model))


def test_a_sampling_that_fails_leaves_nothing(tiny: Callable[..., Any], tmp_path: Path) -> None:
    def stop(step: int, *_: Any) -> None:
        if step == 5:
            raise KeyboardInterrupt

    path = tmp_path / "runs.zarr"
    model = recorded(tiny("EPS"), path)
    with pytest.raises(KeyboardInterrupt):
        sample(model, 1, "euler", 1.0, callback=stop)
    sample(model, 1, "euler", 1.0)
    assert TrajectoryStore.open(path).committed_batches() == [0]


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
