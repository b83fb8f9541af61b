"""Noise levels of every scheduler of diffusers, compared with an analytic Gaussian score."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from asced_recorders.tap import schedulers
from asced_recorders.tap.schedulers import step_table
from asced_recorders.tap.tap import StepEvent, Tap, TapListener
from asced_stores.errors import InputError
from asced_stores.format.noise_levels import eps_and_x0

MEAN, SPREAD = 0.4, 0.3  # the data: independent normals
STEPS = 8
NEEDS_TORCHSDE = {"CosineDPMSolverMultistepScheduler", "DPMSolverSDEScheduler"}


def posterior(x: Any, alpha: Any, sigma: Any) -> tuple[Any, Any]:
    """Exact (eps, x0) of the Gaussian at ``x = alpha * x0 + sigma * eps``."""
    gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
    x0 = MEAN + gain * (x - alpha * MEAN)
    return (x - alpha * x0) / sigma, x0


def trained_on_betas(scheduler: Any, kind: str) -> Callable[[Any, float], Any]:
    """A network that was trained on the betas: it knows its input and the timestep, no more."""
    abar = scheduler.alphas_cumprod.double().numpy()
    sigmas = np.sqrt((1 - abar) / abar)

    def network(z: Any, t: float) -> Any:
        ratio = float(np.interp(t, np.arange(len(sigmas)), sigmas))
        alpha = 1 / math.sqrt(1 + ratio**2)
        sigma = ratio * alpha
        eps, x0 = posterior(z, alpha, sigma)
        if kind == "epsilon":
            return eps
        return x0 if kind == "sample" else alpha * eps - sigma * x0

    return network


def velocity(scheduler: Any, kind: str) -> Callable[[Any, float], Any]:
    """A flow-matching network: the timestep is 1000 times the noise level.

    The DPM solvers cut it to an integer; then the nearest level of their own is meant.
    """
    levels = scheduler.sigmas.double().numpy()

    def network(x: Any, t: float) -> Any:
        s = t / 1000
        if not scheduler.timesteps.is_floating_point():
            s = float(levels[np.abs(levels - s).argmin()])
        eps, x0 = posterior(x, 1 - s, s) if s < 1 else (x, torch.full_like(x, MEAN))
        return eps - x0

    return network


def preconditioned(scheduler: Any, kind: str) -> Callable[[Any, float], Any]:
    """The raw network F of EDM, from ``c_in * x`` and ``c_noise``."""
    data = scheduler.config.sigma_data

    def network(z: Any, t: float) -> Any:
        sigma = math.exp(4 * t)
        total = math.sqrt(sigma**2 + data**2)
        x = z * total
        _, x0 = posterior(x, 1.0, sigma)
        c_out = sigma * data / total * (-1 if kind == "v_prediction" else 1)
        return (x0 - data**2 / total**2 * x) / c_out

    return network


def angle(scheduler: Any, kind: str) -> Callable[[Any, float], Any]:
    """IPNDM: the timestep is an angle, the output a velocity on the circle."""

    def network(x: Any, t: float) -> Any:
        alpha, sigma = math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)
        if alpha < 1e-6:
            return -torch.full_like(x, MEAN)
        eps, x0 = posterior(x, alpha, sigma)
        return alpha * eps - sigma * x0

    return network


def arctangent(scheduler: Any, kind: str) -> Callable[[Any, float], Any]:
    """The raw network of a cosine schedule: as EDM's, told the arctangent of the noise level."""
    inner = preconditioned(scheduler, kind)

    def network(z: Any, t: float) -> Any:
        return inner(z, math.log(math.tan(t * math.pi / 2)) / 4)

    return network


CASES: list[tuple[str, dict[str, Any], Any]] = []
for name in ("DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "LCM", "TCD"):
    for kind in ("epsilon", "v_prediction", "sample"):
        CASES += [(f"{name}Scheduler", {"prediction_type": kind}, trained_on_betas)]
for name in ("CogVideoXDDIM", "CogVideoXDPM"):
    CASES += [(f"{name}Scheduler", {"prediction_type": "v_prediction"}, trained_on_betas)]
for kind in ("epsilon", "sample"):
    CASES += [("UnCLIPScheduler", {"prediction_type": kind}, trained_on_betas)]
for options in ({}, {"skip_prk_steps": True}, {"prediction_type": "v_prediction"}):
    CASES += [("PNDMScheduler", options, trained_on_betas)]
for name in ("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete"):
    for kind in ("epsilon", "v_prediction"):
        CASES += [(f"{name}Scheduler", {"prediction_type": kind}, trained_on_betas)]
for name in ("KDPM2Discrete", "KDPM2AncestralDiscrete"):
    for kind in ("epsilon", "v_prediction"):
        CASES += [(f"{name}Scheduler", {"prediction_type": kind}, trained_on_betas)]
for spacing in ("leading", "trailing", "linspace"):
    for name in ("DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"):
        CASES += [(name, {"timestep_spacing": spacing}, trained_on_betas)]
for name in ("DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep"):
    for kind in ("epsilon", "v_prediction", "sample"):
        CASES += [(f"{name}Scheduler", {"prediction_type": kind}, trained_on_betas)]
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    CASES += [(f"{name}Scheduler", flow, velocity)]
CASES.append(
    (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "sigma_min"},
        trained_on_betas,
    )
)
CASES += [("SASolverScheduler", {}, trained_on_betas)]
CASES += [("SASolverScheduler", {"prediction_type": "v_prediction"}, trained_on_betas)]
for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"):
    for kind in ("epsilon", "v_prediction"):
        CASES += [(name, {"prediction_type": kind}, preconditioned)]
for name in ("Euler", "Heun"):
    CASES += [(f"FlowMatch{name}DiscreteScheduler", {"shift": 3.0}, velocity)]
CASES += [("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, velocity)]
CASES += [("FlowMatchLCMScheduler", {}, velocity)]
CASES += [("LTXEulerAncestralRFScheduler", {}, velocity)]
CASES += [("IPNDMScheduler", {}, angle)]

# These draw their noise with torchsde, which has had no release since 2023 and warns of rounding.
SDE_CASES: list[tuple[str, dict[str, Any], Any]] = []
for kind in ("epsilon", "v_prediction"):
    SDE_CASES += [("DPMSolverSDEScheduler", {"prediction_type": kind}, trained_on_betas)]
    SDE_CASES += [("CosineDPMSolverMultistepScheduler", {"prediction_type": kind}, arctangent)]
MARKS = [pytest.mark.thirdparty, pytest.mark.filterwarnings("ignore:Should have:UserWarning")]


def names(cases: list[tuple[str, dict[str, Any], Any]]) -> list[Any]:
    """Cases as parameters of a test; those that need torchsde are skipped without it."""
    found = []
    for name, options, network in cases:
        case = f"{name.removesuffix('Scheduler')}-{'-'.join(map(str, options.values()))}"
        marks = MARKS if name in NEEDS_TORCHSDE else []
        found.append(pytest.param(name, options, network, id=case, marks=marks))
    return found


class Levels(TapListener):
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[StepEvent] = []

    def before_step(self, event: StepEvent) -> None:
        self.events.append(event)


def walk(scheduler: Any, network: Callable[[Any, float], Any], sample: Any) -> Any:
    """The plain loop of a pipeline."""
    parameters = inspect.signature(scheduler.step).parameters
    old = None
    for i, t in enumerate(scheduler.timesteps):
        scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
        output = network(scale(sample, t), float(t))
        if "old_pred_original_sample" in parameters:
            back = scheduler.timesteps[i - 1] if i else None
            sample, old = scheduler.step(output, old, t, back, sample, return_dict=False)
        else:
            sample = scheduler.step(output, t, sample, return_dict=False)[0]
    return sample


@pytest.mark.parametrize(("name", "options", "network"), names(CASES + SDE_CASES))
def test_levels_agree_with_the_analytic_score(name: str, options: Any, network: Any) -> None:
    if "prediction_type" not in options and name not in {"IPNDMScheduler"}:
        kind = "epsilon"
    else:
        kind = options.get("prediction_type", "epsilon")
    scheduler = build(name, options)
    torch.manual_seed(0)
    scheduler.set_timesteps(STEPS)
    model = network(scheduler, kind)
    sample = torch.randn(4, 1, 3, 3, dtype=torch.float64)
    sample = sample * float(getattr(scheduler, "init_noise_sigma", 1.0))
    listener = Levels()
    with Tap(scheduler, listener):
        walk(scheduler, model, sample)
    events = listener.events
    assert [event.step for event in events] == list(range(len(events)))
    assert len(events) == events[0].steps >= STEPS - 1
    assert np.all(np.diff(events[0].table.log_snr) > 0)
    for event in events:
        eps, x0 = eps_and_x0(
            event.sample,
            event.model_output,
            alpha=event.alpha,
            sigma=event.sigma,
            prediction_type=event.prediction_type,
            sigma_data=event.sigma_data,
        )
        if event.alpha < 1e-5:  # pure noise: the exact x0 is the mean
            assert float((x0 - MEAN).abs().max()) < 1e-5
            continue
        true_eps, true_x0 = posterior(event.sample, event.alpha, event.sigma)
        kappa = max(1.0, event.sigma / event.alpha)
        assert float((eps - true_eps).abs().max()) < 1e-5 * float(true_eps.abs().max() + 1)
        assert float((x0 - true_x0).abs().max()) / kappa < 1e-5
        # The events' own float32: x0 given and sigma small, eps is a difference of near equals.
        rounding = 1e-6 * (1 + float(event.sample.abs().max()) / event.sigma)
        torch.testing.assert_close(event.eps.double(), eps, rtol=1e-5, atol=rounding)


def build(name: str, options: dict[str, Any]) -> Any:
    """Build a scheduler, with DPM single-step's own warning silenced by its own option."""
    if name in NEEDS_TORCHSDE:
        pytest.importorskip("torchsde")
    if name == "DPMSolverSinglestepScheduler":
        options = {"lower_order_final": True, **options}
    return getattr(diffusers, name)(**options)


def all_schedulers() -> Iterator[str]:
    """Names of every class of diffusers that is a scheduler with steps."""
    from diffusers.schedulers import scheduling_utils

    for name in sorted(dir(diffusers)):
        if name.endswith("Scheduler") and not name.startswith("Flax"):
            cls = getattr(diffusers, name)
            if isinstance(cls, type) and issubclass(cls, scheduling_utils.SchedulerMixin):
                yield name


def test_every_scheduler_of_diffusers_is_compared_with_the_score_or_refused() -> None:
    known = set(all_schedulers())
    tested = {name for name, _, _ in CASES + SDE_CASES}
    assert known - tested - set(schedulers.REFUSED) == set()


@pytest.mark.parametrize("name", sorted(set(schedulers.REFUSED) & set(all_schedulers())))
def test_a_scheduler_that_cannot_be_recorded_says_why(name: str) -> None:
    cls = getattr(diffusers, name)
    stub = cls.__new__(cls)
    with pytest.raises(InputError, match=name):
        schedulers.scheduler_class(stub)


def test_second_order_levels_count_once() -> None:
    for name in ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler"):
        scheduler = build(name, {})
        scheduler.set_timesteps(5)
        table = step_table(scheduler)
        assert table.steps == 5
        assert table.calls.tolist() == [0, -1, 1, -1, 2, -1, 3, -1, 4]
    scheduler = build("PNDMScheduler", {"skip_prk_steps": True})
    scheduler.set_timesteps(5)
    assert step_table(scheduler).calls.tolist() == [0, -1, 1, 2, 3, 4]


def test_an_unset_schedule_is_an_error() -> None:
    with pytest.raises(InputError, match="set_timesteps"):
        step_table(diffusers.DDIMScheduler())


def test_a_zero_terminal_snr_schedule_starts_at_pure_noise() -> None:
    scheduler = diffusers.DDIMScheduler(
        rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
    )
    scheduler.set_timesteps(5)
    table = step_table(scheduler)
    assert table.alpha[0] < 1e-6
    assert table.log_snr[0] < -30


def test_a_flow_scheduler_with_levels_of_sigma_space_is_given_eps() -> None:
    """Cosmos 2: sigmas from 80 on, and eps of a denoiser where the velocity is expected."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    scheduler.register_to_config(sigma_max=80.0, sigma_min=0.002)
    scheduler.set_timesteps(sigmas=np.linspace(0, 1, 6))
    table = step_table(scheduler)
    assert table.prediction_type == "epsilon"
    assert table.alpha.tolist() == [1] * 6
    np.testing.assert_allclose(table.sigma[[0, -1]], (80, 0.002), rtol=1e-6)
    x = torch.full((1, 1, 2, 2), 3.0, dtype=torch.float64)
    for step, t in enumerate(scheduler.timesteps[:-1]):
        eps, x0 = posterior(x, 1.0, table.sigma[step])
        x = scheduler.step(eps, t, x).prev_sample.double()
        torch.testing.assert_close(x, x0 + table.sigma[step + 1] * eps, atol=1e-5, rtol=1e-5)
    drawing = diffusers.FlowMatchLCMScheduler()
    drawing.set_timesteps(3)
    drawing.sigmas = drawing.sigmas * 80
    with pytest.raises(InputError, match="sigmas up to 80"):
        step_table(drawing)
