"""What many runs will take, from a few short ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_pipelines import dit, sd3, stable_diffusion

from asced_recorders.pipelines.kinds import kind_of, trial_arguments
from asced_recorders.recording.trial_runs import PATIENCE, try_runs
from asced_stores.errors import InputError

A_CALL, A_RUN = 1 / 64, 1 / 256


class NetworkClock:
    """Time that passes in the network alone: so much a call, and so much for each of its images."""

    def __init__(self, network: torch.nn.Module, a_call: float, an_image: float = 0.0) -> None:
        self.now, self.images = 0.0, []

        def count(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            size = len(given[0] if given else named["hidden_states"])
            self.images.append(size)
            self.now += a_call + an_image * size

        self.hook = network.register_forward_pre_hook(count, with_kwargs=True)

    def __call__(self) -> float:
        return self.now


def guided(pipe: Any) -> int:
    """Images that the network sees for each that is drawn."""
    return 1 if kind_of(pipe).takes == "nothing" else 2


@pytest.mark.parametrize(
    ("make", "name", "batch"),
    [
        (lambda tiny: tiny("DDPM", 3), "unet", 16),
        (lambda tiny: stable_diffusion(), "unet", 4),
        (lambda tiny: dit(), "transformer", 4),
    ],
    ids=["pixels", "prompts", "classes"],
)
def test_time_is_that_of_batches_which_fit_the_kind(
    make_tiny: Callable[..., Any], make: Callable[[Any], Any], name: str, batch: int
) -> None:
    pipe = make(make_tiny)
    kind = kind_of(pipe)
    clock = NetworkClock(getattr(pipe, name), A_CALL, A_RUN)
    tried = try_runs(pipe, kind, trial_arguments(kind) or {}, clock)
    assert tried.batch_size == batch == clock.images[-1] // guided(pipe)
    a_step = A_CALL + batch * guided(pipe) * A_RUN
    assert tried.step_seconds == a_step
    assert tried.seconds(batch * 10 + 1, 25) == 11 * 25 * a_step
    clock.hook.remove()


def test_slow_networks_are_not_asked_for_batches(make_tiny: Callable[..., Any]) -> None:
    pipe = make_tiny("DDIM", 1)
    clock = NetworkClock(pipe.unet, 0.0, PATIENCE / 64)
    tried = try_runs(pipe, kind_of(pipe), {}, clock)
    assert tried.batch_size == 1
    assert set(clock.images) == {1}
    assert tried.seconds(500, 25) == 500 * 25 * PATIENCE / 64


def test_a_batch_that_fails_is_named_and_runs_are_measured_alone(
    make_tiny: Callable[..., Any],
) -> None:
    pipe = make_tiny("DDIM", 1)

    def full(module: Any, given: tuple[Any, ...]) -> None:
        if len(given[0]) > 1:
            raise torch.OutOfMemoryError("no room")

    pipe.unet.register_forward_pre_hook(full)
    tried = try_runs(pipe, kind_of(pipe), {}, NetworkClock(pipe.unet, A_CALL))
    assert tried.batch_size == 1
    assert "no room" in tried.refused
    assert tried.seconds(500, 25) == 500 * 25 * A_CALL


def test_a_pipeline_that_cannot_be_recorded_says_why(make_tiny: Callable[..., Any]) -> None:
    pipe = make_tiny("DDIM", 1)
    with pytest.raises(InputError, match="takes no prompts"):
        try_runs(pipe, kind_of(pipe), {"prompts": ["a"]})


def test_a_pipeline_without_its_text_encoders_takes_embeddings() -> None:
    kind = kind_of(sd3())
    assert kind.takes == "prompt embeddings"
    assert trial_arguments(kind) is None
