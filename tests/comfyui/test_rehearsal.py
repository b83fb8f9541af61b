"""The rehearsal of samplers, without an engine: what is a step, and whether an edit lasts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from asced_recorders.comfyui.levels import noise_level
from asced_recorders.comfyui.rehearsal import SamplerCall, lasting, rehearse
from asced_stores.errors import InputError

SIGMAS = torch.tensor([14.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.0])
STEPS = len(SIGMAS) - 1


class Sampler:
    """A sampler as ComfyUI calls it: a function of a model, which may be called at will."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.sampler_function = function

    def sample(
        self, guider: Any, sigmas: Any, extra: Any, callback: Any, noise: Any, *_: Any
    ) -> Any:
        def model(x: Any, sigma: Any) -> Any:
            return guider(x, sigma * x.new_ones(len(x)), extra.get("model_options"))

        return self.sampler_function(model, noise * sigmas[0], sigmas, callback)


def heun(model: Any, x: Any, sigmas: Any, callback: Any) -> Any:
    for i in range(STEPS):
        denoised = model(x, sigmas[i])
        callback(i, denoised, x, STEPS)
        slope = (x - denoised) / sigmas[i]
        dt = sigmas[i + 1] - sigmas[i]
        if sigmas[i + 1] > 0:
            ahead = x + slope * dt
            slope = (slope + (ahead - model(ahead, sigmas[i + 1])) / sigmas[i + 1]) / 2
        x = x + slope * dt
    return x


def two_steps(model: Any, x: Any, sigmas: Any, callback: Any) -> Any:
    """Adams and Bashforth's: mixes in the slope before."""
    before = None
    for i in range(STEPS):
        denoised = model(x, sigmas[i])
        callback(i, denoised, x, STEPS)
        slope = (x - denoised) / sigmas[i]
        mixed = slope if before is None else 1.5 * slope - 0.5 * before
        x = x + mixed * (sigmas[i + 1] - sigmas[i])
        before = slope
    return x


def ancestral(model: Any, x: Any, sigmas: Any, callback: Any) -> Any:
    for i in range(STEPS):
        denoised = model(x, sigmas[i])
        callback(i, denoised, x, STEPS)
        x = denoised + torch.randn_like(x) * sigmas[i + 1]
    return x


def copies(model: Any, x: Any, sigmas: Any, callback: Any) -> Any:
    """Shows the model a copy, so that nothing can be written into its sample."""
    for i in range(STEPS):
        denoised = model(x.clone(), sigmas[i])
        callback(i, denoised, x, STEPS)
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def asks_twice(model: Any, x: Any, sigmas: Any, callback: Any) -> Any:
    """Goes on from a second evaluation at the same level."""
    for i in range(STEPS):
        callback(i, model(x + 0, sigmas[i]), x, STEPS)
        denoised = model(x, sigmas[i])
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def level(sigma: float) -> tuple[float, float]:
    return 1.0, sigma


@pytest.mark.parametrize(
    ("function", "calls", "lasts"),
    [
        (heun, [0, 2, 4, 6, 8, 10], True),
        (two_steps, [0, 1, 2, 3, 4, 5], False),
        (ancestral, [0, 1, 2, 3, 4, 5], True),
        (copies, [0, 1, 2, 3, 4, 5], False),
        (asks_twice, [1, 3, 5, 7, 9, 11], True),
    ],
)
def test_steps_are_told_from_calls_and_edits_are_tried(
    function: Callable[..., Any], calls: list[int], lasts: bool
) -> None:
    sampler, guider = Sampler(function), SimpleNamespace(inner_model=None)
    before = torch.random.get_rng_state()
    call = SamplerCall(sampler, guider, SIGMAS, {})
    plan = rehearse(call)
    assert list(plan.steps) == calls
    assert plan.schedule == SIGMAS[:-1].tolist()
    found = lasting(call, plan, [2, 3], level)
    assert found == {2: lasts, 3: lasts}
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_sampler_that_fails_or_says_nothing_is_refused_by_name() -> None:
    def breaks(*_: Any) -> Any:
        raise KeyError("conds")

    for function, words in ((breaks, "breaks failed .*conds"), (lambda *_: 0, "does not say when")):
        with pytest.raises(InputError, match=words):
            rehearse(SamplerCall(Sampler(function), SimpleNamespace(inner_model=None), SIGMAS, {}))


def test_a_level_that_nobody_names_is_refused() -> None:
    class Odd:
        def noise_scaling(self, sigma: Any, noise: Any, image: Any) -> Any:
            return noise / 0 * sigma + image

    with pytest.raises(InputError, match="Odd"):
        noise_level(Odd(), 0.5)
    with pytest.raises(InputError, match="does not say how"):
        noise_level(object(), 0.5)
