"""The corrector in the loop: any pipeline, any scheduler family, nothing left behind."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from asced_analysis.calibration import calibrate
from asced_analysis.correction import Corrector, make_strategy
from asced_analysis.correction.controls import control_masks, foreground
from asced_analysis.correction.lookahead import pipeline_network
from asced_analysis.correction.masks import grow, resize, soften
from asced_analysis.detection import VARIANTS
from asced_analysis.detection.registry import needs_network
from asced_analysis.replay.planning import detect_recorded
from asced_analysis.replay.recording import Recording
from asced_analysis.thresholds.document import Thresholds
from asced_recorders import record
from asced_recorders.pipelines.sampling import initial_noise, run_generators, sample_unconditional
from asced_recorders.pipelines.scheduler_names import SHORT_NAMES, make_scheduler
from asced_stores import open_runs
from asced_stores.errors import InputError

SQUARE = np.zeros((16, 16), bool)
SQUARE[4:9, 5:10] = True


@pytest.fixture(scope="module")
def runs(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corrector") / "runs.zarr"
    record(tiny_pipeline, path, runs=60, steps=10, batch_size=20, seed=100, checkpoints=(4,))
    return path


@pytest.fixture(scope="module")
def thresholds(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = calibrate(runs, "calibrated", false_alarm_rate=0.3)
    return found.save(tmp_path_factory.mktemp("thresholds") / "thresholds.json")


def draw(pipe: Any, listener: Any, seeds: range = range(100, 120), steps: int = 10) -> np.ndarray:
    pipe.scheduler.set_timesteps(steps)
    generators = run_generators(list(seeds))
    x_init = initial_noise(pipe, generators)
    out = sample_unconditional(
        pipe, x_init=x_init, steps=steps, generators=generators, listener=listener
    )
    return out.numpy()


def test_the_loop_flags_what_the_store_flags(
    runs: Path, thresholds: Path, tiny_pipeline: Any
) -> None:
    corrector = Corrector.from_file(thresholds)
    draw(tiny_pipeline, corrector)
    offline = detect_recorded(Recording(runs), Thresholds.load(thresholds))
    flags = [report.flagged for report in corrector.report]
    assert flags == [run in offline.masks for run in range(20)]
    assert any(flags)
    for report in corrector.report:
        assert report.score == pytest.approx(offline.scores[report.run], rel=1e-5)
        if report.flagged:
            assert (report.mask == offline.masks[report.run]).mean() > 0.9999


@pytest.mark.parametrize("variant", [name for name in VARIANTS if not VARIANTS.get(name).learnt])
def test_masks_of_every_variant_are_those_of_the_store(
    variant: str, runs: Path, tiny_pipeline: Any
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few runs
        one = {"draws": 1} if VARIANTS.get(variant).extra_evaluations({"draws": 1}) else None
        found = calibrate(
            runs,
            variant,
            false_alarm_rate=0.3,
            window=(0.2, 0.4),
            parameters=one,
            pipeline=tiny_pipeline,
        )
    asked = pipeline_network(tiny_pipeline) if needs_network(found) else None
    offline = detect_recorded(Recording(runs), found, network=asked)
    corrector = Corrector(found, strategy="ttc", step=6, grow=0, network=asked)
    edited = draw(tiny_pipeline, corrector)
    plain = open_runs(runs)["sample"].values[:20]
    for report, before, after in zip(corrector.report, plain, edited, strict=True):
        assert report.flagged == (report.run in offline.masks)
        if report.flagged:
            assert (report.mask == offline.masks[report.run]).mean() > 0.99
            assert (before != after).any()
        else:
            assert (before == after).all()
    if variant not in ("paper", "released"):  # sizes for larger images
        assert any(report.flagged for report in corrector.report)


def test_flagged_images_alone_change(thresholds: Path, tiny_pipeline: Any) -> None:
    corrector = Corrector.from_file(thresholds)
    plain, corrected = draw(tiny_pipeline, None), draw(tiny_pipeline, corrector)
    same = (plain == corrected).all((1, 2, 3))
    assert same.tolist() == [not report.flagged for report in corrector.report]
    assert [report.run for report in corrector.report] == list(range(20))


@pytest.mark.parametrize("strategy", ["state_replacement", "score_clipping"])
def test_masks_that_grow_step_by_step(strategy: str, thresholds: Path, tiny_pipeline: Any) -> None:
    corrector = Corrector.from_file(thresholds, strategy=strategy)
    plain, corrected = draw(tiny_pipeline, None), draw(tiny_pipeline, corrector)
    same = (plain == corrected).all((1, 2, 3))
    flagged = np.array([report.flagged for report in corrector.report])
    assert len(flagged) == 20
    assert same[~flagged].all()
    assert not same[flagged].all()


def test_a_correction_before_the_detector_looks_is_refused(
    thresholds: Path, tiny_pipeline: Any
) -> None:
    with pytest.raises(InputError, match="choose a later T_c"):
        draw(tiny_pipeline, Corrector.from_file(thresholds, step=1))


def test_attach_leaves_the_pipeline_as_it_was(thresholds: Path, tiny_pipeline: Any) -> None:
    kind = type(tiny_pipeline.scheduler)
    corrector = Corrector.from_file(thresholds)
    with corrector.attach(tiny_pipeline):
        images = tiny_pipeline(
            batch_size=2,
            num_inference_steps=10,
            generator=run_generators([0, 1]),
            output_type="np",
        ).images
    assert type(tiny_pipeline.scheduler) is kind
    assert images.shape == (2, 16, 16, 1)
    assert len(corrector.report) == 2


@pytest.mark.parametrize("scheduler", SHORT_NAMES)
def test_an_edit_holds_for_every_scheduler_family(scheduler: str, tiny_pipeline: Any) -> None:
    """What is put into the mask must survive the solver's memory (UniPC would undo it)."""
    pipe = copy.copy(tiny_pipeline)
    if scheduler.startswith(("flow", "edm")):
        pipe.scheduler = getattr(diffusers, SHORT_NAMES[scheduler])()
    else:
        kind = {"prediction_type": "epsilon"} if scheduler == "pndm" else None
        pipe.scheduler = make_scheduler(scheduler, tiny_pipeline.scheduler, kind)
    masks = np.stack([SQUARE, np.zeros_like(SQUARE)])

    class Last(Corrector):
        """Edits the sample entering the last step by a lot."""

        def after_step(self, event: Any, next_sample: torch.Tensor) -> torch.Tensor | None:
            assert self._call is not None
            entering = self._call.state.correction_step
            if event.step + 1 == entering:
                return next_sample + 50 * event.next_sigma * self._call.state.mask
            return None

    corrector = Corrector(None, strategy="ttc")
    pipe.scheduler.set_timesteps(8)
    from asced_recorders.tap.schedulers import step_table

    target = corrector.target(step_table(pipe.scheduler))
    corrector = Last(None, strategy="ttc", step=target)
    corrector.assign([0, 1], masks=masks)
    plain = draw(pipe, None, range(2), 8)
    edited = draw(pipe, corrector, range(2), 8)
    assert (plain[1] == edited[1]).all()
    away = np.abs(edited - plain)[0, 0]
    assert away[SQUARE].mean() > 5 * away[~SQUARE].mean()
    assert away[SQUARE].mean() > 0.1


def test_outside_a_hard_mask_the_edit_changes_no_bit(tiny_pipeline: Any) -> None:
    seen: dict[str, torch.Tensor] = {}

    class Spy(Corrector):
        def after_step(self, event: Any, next_sample: torch.Tensor) -> torch.Tensor | None:
            out = super().after_step(event, next_sample)
            if out is not None:
                seen["before"], seen["after"] = next_sample.clone(), out.clone()
                seen["noise"] = (
                    out - event.next_alpha * event.x0.half().float()
                ) / event.next_sigma
            return out

    corrector = Spy(None, strategy="ttc", step=5)
    corrector.assign([0, 1], masks=np.stack([SQUARE, SQUARE.T]))
    draw(tiny_pipeline, corrector, range(2))
    inside = torch.from_numpy(np.stack([SQUARE, SQUARE.T]))[:, None]
    assert (seen["before"] == seen["after"])[~inside].all()
    noise = seen["noise"][inside]  # x = alpha x0 + sigma z inside
    assert abs(float(noise.mean())) < 0.5
    assert 0.6 < float(noise.std()) < 1.4


@pytest.mark.parametrize("perturbation", ["additive", "multiplicative"])
def test_noise_scale_changes_the_edit(perturbation: str, tiny_pipeline: Any) -> None:
    outs = []
    for scale in (0.0, 0.3):
        corrector = Corrector(None, step=5, perturbation=perturbation, noise_scale=scale)
        corrector.assign([0], masks=SQUARE[None])
        outs.append(draw(tiny_pipeline, corrector, range(1)))
    assert (outs[0] != outs[1]).any()


def test_eta_makes_one_step_stochastic(tiny_pipeline: Any) -> None:
    outs = []
    for eta in (0.0, 1.0):
        corrector = Corrector(None, step=5, eta=eta)
        corrector.assign([0], masks=SQUARE[None])
        outs.append(draw(tiny_pipeline, corrector, range(1)))
    assert (outs[0] != outs[1]).any()


def test_a_stochastic_step_has_the_next_levels_noise() -> None:
    """With exact eps and x0, the result is alpha x0 + sigma z for a standard normal z."""
    from types import SimpleNamespace

    from asced_analysis.correction.strategy import stochastic_step

    torch.manual_seed(0)
    eps, noise = torch.randn(2, 200_000)
    for alpha, sigma, after, level in ((0.6, 0.8, 0.8, 0.6), (1.0, 3.0, 1.0, 2.0)):
        event: Any = SimpleNamespace(
            alpha=alpha, sigma=sigma, next_alpha=after, next_sigma=level, eps=eps, x0=eps * 0
        )
        for eta in (0.0, 0.5, 1.0):
            out = stochastic_step(event, noise, eta)
            assert out is not None
            assert float(out.std()) == pytest.approx(level, rel=0.01)


def test_soft_edges_fade() -> None:
    mask = torch.zeros(1, 9, 9)
    mask[0, 4, 4] = 1
    weight = soften(mask, 2)[0]
    assert weight[4].tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 0, 0])
    assert grow(mask, 1).sum() == 9
    assert resize(mask, (3, 3))[0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_random_places_lie_in_the_foreground() -> None:
    image = np.full((1, 1, 32, 32), -1.0, np.float32)
    image[0, 0, 8:24, 8:24] = 0.5
    masks = np.zeros((1, 32, 32), bool)
    masks[0, :6, :6] = True
    placed = control_masks("foreground", masks, np.array([True]), image)
    assert placed.sum() == 36
    assert foreground(image[0])[placed[0]].all()
    again = control_masks("foreground", masks, np.array([True]), image)
    assert (placed == again).all()


def test_what_needs_two_passes_is_refused_in_the_loop() -> None:
    for strategy in ("noise_denoise", "restart"):
        with pytest.raises(InputError, match="asced replay"):
            Corrector(None, strategy=strategy)


@pytest.mark.parametrize(
    ("strategy", "parameters", "message"),
    [
        ("ttc", {"reverse_step": 0}, "at least 1"),
        ("ttc", {"perturbation": "odd"}, "additive or multiplicative"),
        ("ttc", {"eta": 2}, "eta lies in"),
        ("ttc", {"colour": 1}, "no parameter 'colour'.*noise_scale"),
        ("stochastic_steps", {"count": 0}, "at least 1"),
        ("score_clipping", {"mad_scale": 0}, "positive"),
        ("restart", {"tries": 0}, "at least 1"),
    ],
)
def test_wrong_parameters_are_named(
    strategy: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_strategy(strategy, **parameters)


def test_wrong_use_is_named(tiny_pipeline: Any) -> None:
    with pytest.raises(InputError, match="needs masks"):
        draw(tiny_pipeline, Corrector(None), range(2))
    for step in (-1, 0, 2.5, True):
        with pytest.raises(InputError, match=f"step is {step}; expected a whole number of at"):
            Corrector(None, step=step)
    corrector = Corrector(None, step=5)
    corrector.assign([0, 1, 2], masks=np.stack([SQUARE] * 3))
    with pytest.raises(InputError, match="3 runs were assigned to a batch of 2"):
        draw(tiny_pipeline, corrector, range(2))
    corrector = Corrector(None, step=99)
    corrector.assign([0, 1], masks=np.stack([SQUARE] * 2))
    with pytest.raises(InputError, match="steps 1 to 9"):
        draw(tiny_pipeline, corrector, range(2))


@pytest.mark.pages
def test_a_corrector_loads_no_analysis_stack(
    runs: Path, thresholds: Path, tiny_folder: Path
) -> None:
    """In deployment: no zarr, xarray, dask or scikit-learn, even after sampling with it."""
    recorded = open_runs(runs)
    levels = [recorded[name].values.tolist() for name in ("alpha", "sigma")]
    code = f"""
import json, sys
import torch
sys.modules["diffusers"] = None  # someone else's loop needs none
from asced_analysis.correction import Corrector
alpha, sigma = {levels!r}
corrector = Corrector.from_file({str(thresholds)!r}, schedule=(alpha, sigma))
x = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
for a, s, b, r in zip(alpha, sigma, [*alpha[1:], 1.0], [*sigma[1:], 0.0]):
    x0 = torch.tanh(x)
    eps = (x - a * x0) / s
    x = corrector.step(
        sample=x, model_output=eps, alpha=a, sigma=s, next_sample=b * x0 + r * eps
    )
assert len(corrector.report) == 3
del sys.modules["diffusers"]
from diffusers import DDIMPipeline
from asced_analysis.correction import Corrector
pipe = DDIMPipeline.from_pretrained({str(tiny_folder)!r})
pipe.set_progress_bar_config(disable=True)
corrector = Corrector.from_file({str(thresholds)!r})
with corrector.attach(pipe):
    pipe(batch_size=2, num_inference_steps=10)
names = ("zarr", "xarray", "dask", "sklearn", "distributed", "pandas", "matplotlib")
print(json.dumps([len(corrector.report), [n for n in names if n in sys.modules]]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    images, loaded = json.loads(done.stdout.splitlines()[-1])
    assert images == 2
    assert loaded == []
