"""An edit lasts: the noise inside the mask keeps its level over the steps that follow.

With two networks, one that knows x0 and one that is exact for a Gaussian, over every scheduler of
diffusers that can be built, every solver of each, every kind of prediction and every strategy.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asced_analysis.correction import Corrector
from asced_recorders.tap.schedulers import step_table
from asced_recorders.tap.tap import ListenerChain, StepEvent, Tap, TapListener
from asced_stores.errors import InputError
from asced_stores.format.noise_levels import weighted_score

_path = Path(__file__).parents[1] / "recorders" / "test_schedulers_gaussian.py"
_spec = importlib.util.spec_from_file_location("gaussian_networks", _path)
assert _spec is not None
assert _spec.loader is not None
gaussian: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gaussian)

STEPS, FOLLOWING, SIDE = 25, 8, 64
MASK = np.zeros((SIDE, SIDE), bool)
MASK[8:56, 8:56] = True
SPREADS = {"knows x0": 0.0, "Gaussian": 0.05}

beta = gaussian.trained_on_betas
CASES: list[tuple[str, dict[str, Any], Any]] = list(gaussian.CASES)
for kind in ("dpmsolver++", "dpmsolver", "sde-dpmsolver++"):
    for order in (2, 3)[: 1 if kind.startswith("sde") else 2]:
        given = {"algorithm_type": kind, "solver_order": order, "final_sigmas_type": "sigma_min"}
        CASES += [("DPMSolverMultistepScheduler", {**given, "solver_type": "heun"}, beta)]
        CASES += [("DPMSolverSinglestepScheduler", given, beta)]
for order in (2, 3):
    CASES += [("UniPCMultistepScheduler", {"predict_x0": False, "solver_order": order}, beta)]
    CASES += [("DEISMultistepScheduler", {"solver_order": order}, beta)]
CASES += [("SASolverScheduler", {"predictor_order": 3, "corrector_order": 4}, beta)]
for sigma_data in (0.25, 1.0):
    for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"):
        for kind in ("epsilon", "v_prediction"):
            options = {"sigma_data": sigma_data, "prediction_type": kind}
            CASES += [(name, options, gaussian.preconditioned)]
REFUSED = [
    ("PNDMScheduler", {"prediction_type": "v_prediction"}),
    (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    ("SASolverScheduler", {"algorithm_type": "noise_prediction"}),
]


PLAIN: dict[tuple[str, float], Watch] = {}


class EnoughError(Exception):
    """All steps that are looked at were seen."""


class Watch(TapListener):
    """Keeps what enters every step up to the last, and the noise predicted of it."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.samples: list[torch.Tensor] = []
        self.scores: list[torch.Tensor] = []
        self.noise: list[float] = []

    def before_step(self, event: StepEvent) -> None:
        self.samples.append(event.sample.clone())
        inside = torch.from_numpy(MASK)
        spread = math.sqrt((event.alpha * gaussian.SPREAD) ** 2 + event.sigma**2)
        noise = (event.sample - event.alpha * gaussian.MEAN) / spread
        self.noise.append(float(noise[..., inside].square().mean().sqrt()))
        if event.alpha > 0:
            self.scores.append(weighted_score(event.eps, event.alpha, event.sigma))
        if event.step == self.last:
            raise EnoughError


def build(name: str, options: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # algorithms that diffusers will remove
        scheduler = gaussian.build(name, options)
    scheduler.set_timesteps(STEPS)
    return scheduler


def sample(
    name: str,
    options: dict[str, Any],
    network: Any,
    spread: float,
    corrector: Corrector | None,
    last: int = STEPS - 1,
) -> Watch:
    """Four large samples up to a step, with a watch that sees what was edited."""
    gaussian.SPREAD = spread
    scheduler = build(name, options)
    model = network(scheduler, options.get("prediction_type", "epsilon"))
    start = torch.Generator().manual_seed(0)
    x = torch.randn((4, 3, SIDE, SIDE), generator=start, dtype=torch.float64)
    watch = Watch(last)
    if corrector is not None:
        corrector.assign(range(4), masks=np.stack([MASK] * 4))
    torch.manual_seed(1)
    listener = watch if corrector is None else ListenerChain(corrector, watch)
    with suppress(EnoughError), Tap(scheduler, listener):
        walk(scheduler, model, x * float(getattr(scheduler, "init_noise_sigma", 1.0)))
    return watch


def plain_run(name: str, options: dict[str, Any], network: Any, spread: float) -> Watch:
    """The same without a corrector; of one solver it is drawn once for all strategies."""
    if (name, spread) not in PLAIN:
        PLAIN[name, spread] = sample(name, options, network, spread, None)
    return PLAIN[name, spread]


def walk(scheduler: Any, network: Callable[[Any, float], Any], sample: Any) -> None:
    """The loop of a pipeline, with what some schedulers want beside."""
    parameters = inspect.signature(scheduler.step).parameters
    times, old = scheduler.timesteps, None
    scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
    for i, t in enumerate(times):
        output, more = network(scale(sample, t), float(t)), {}
        if "prev_timestep" in parameters and i + 1 < len(times):
            more = {"prev_timestep": times[i + 1]}
        if "old_pred_original_sample" in parameters:
            back = times[i - 1] if i else None
            sample, old = scheduler.step(output, old, t, back, sample, return_dict=False)
        else:
            sample = scheduler.step(output, t, sample, return_dict=False, **more)[0]


@pytest.mark.parametrize(("name", "options", "network"), gaussian.names(CASES + gaussian.SDE_CASES))
def test_the_noise_of_an_edit_keeps_its_level(name: str, options: Any, network: Any) -> None:
    table = step_table(build(name, options))
    if not table.editable.any():
        pytest.skip("refused for corrections, by name: see the test of that")
    step = next(k for k in range(8, STEPS) if table.editable[k])
    for spread in SPREADS.values():
        after = range(step, min(step + FOLLOWING + 1, table.steps))
        plain = sample(name, options, network, spread, None, after[-1])
        corrector = Corrector(None, strategy="ttc", step=step, grow=0)
        edited = sample(name, options, network, spread, corrector, after[-1])
        for k in after:
            assert edited.noise[k] == pytest.approx(1, abs=0.02), k
            same = (edited.samples[k] == plain.samples[k]).numpy()
            assert same[..., ~MASK].all()
            assert not same[..., MASK].any() or k > step  # stochastic ones may meet again
        apart = (edited.samples[step] - plain.samples[step]).numpy()[..., MASK]
        assert apart.std() > 0.5 * float(table.sigma[step])


@pytest.mark.parametrize(("name", "options"), REFUSED)
def test_a_solver_that_does_not_keep_noise_is_refused_by_name(name: str, options: Any) -> None:
    table = step_table(build(name, options))
    with pytest.raises(InputError, match=name):
        Corrector(None).target(table)
    with pytest.raises(InputError, match=name):
        Corrector(None).strategy.check(table, 12)


STRATEGIES: dict[str, dict[str, Any]] = {
    "ttc": {"noise_scale": 0.0, "renoise_steps": (16,)},
    "renoise": {"where": "everywhere"},
    "state_replacement": {},
    "stochastic_steps": {"count": 3},
    "noise_normalisation": {},
}
SOLVERS: list[tuple[str, dict[str, Any], Any]] = [
    ("DDIMScheduler", {}, beta),
    ("PNDMScheduler", {"skip_prk_steps": True}, beta),
    ("LMSDiscreteScheduler", {}, beta),
    ("DEISMultistepScheduler", {}, beta),
    ("UniPCMultistepScheduler", {"prediction_type": "sample"}, beta),
    ("DPMSolverMultistepScheduler", {"prediction_type": "v_prediction"}, beta),
    ("IPNDMScheduler", {}, gaussian.angle),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, gaussian.velocity),
    ("EDMDPMSolverMultistepScheduler", {"sigma_data": 1.0}, gaussian.preconditioned),
]


@pytest.mark.parametrize(("name", "options", "network"), SOLVERS, ids=[s[0] for s in SOLVERS])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_leaves_noise_of_one_sigma(
    strategy: str, name: str, options: Any, network: Any
) -> None:
    step = 12
    parameters = STRATEGIES[strategy]
    corrector = Corrector(None, strategy=strategy, step=step, grow=0, **parameters)
    edited = sample(name, options, network, 0.02, corrector)
    assert edited.noise[step : step + FOLLOWING + 1] == pytest.approx([1] * 9, abs=0.02)
    plain = plain_run(name, options, network, 0.02)
    if strategy not in ("renoise", "noise_normalisation"):  # these take whole runs
        for ours, theirs in zip(edited.samples, plain.samples, strict=True):
            assert (ours == theirs).numpy()[..., ~MASK].all()


@pytest.mark.parametrize(("name", "options", "network"), SOLVERS, ids=[s[0] for s in SOLVERS])
def test_score_clipping_gives_the_score_of_its_formula(
    name: str, options: Any, network: Any
) -> None:
    """W' = W_{k-1} + clip(D_k, -tau, tau), in whatever the network says."""
    step, first = 12, 6
    corrector = Corrector(None, strategy="score_clipping", step=step, grow=0, mad_scale=0.5)
    scores = sample(name, options, network, 0.05, corrector).scores
    missing = STEPS - len(scores)  # alpha is 0 at the first step of a flow
    for k in range(first + 1, step):
        before, now = scores[k - 1 - missing].numpy(), scores[k - missing].numpy()
        change = (now - before)[..., MASK]
        assert np.abs(change).max() > 0
    plain = plain_run(name, options, network, 0.05).scores
    k = first - missing
    change = (plain[k] - plain[k - 1]).double().numpy()
    flat = change.reshape(4, -1)
    away = np.abs(flat - np.median(flat, 1, keepdims=True))
    tau = 0.5 * 1.4826 * np.median(away, 1).reshape(-1, 1, 1, 1)
    expected = plain[k - 1].double().numpy() + np.clip(change, -tau, tau)
    scale = max(1.0, float(np.abs(expected).max()))
    found = scores[k].double().numpy()
    np.testing.assert_allclose(found[..., MASK] / scale, expected[..., MASK] / scale, atol=1e-5)
    np.testing.assert_array_equal(found[..., ~MASK], plain[k].double().numpy()[..., ~MASK])
