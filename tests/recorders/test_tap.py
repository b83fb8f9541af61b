"""The tap: it changes nothing, sees everything, and is always removed."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import diffusers
import pytest
import torch

from asced_recorders.pipelines.sampling import initial_noise, run_generators, sample_unconditional
from asced_recorders.tap.schedulers import StepTable
from asced_recorders.tap.tap import ListenerChain, StepEvent, Tap, TapListener
from asced_stores.errors import InputError

SCHEDULERS = [
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
]


class Watch(TapListener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.tables: list[StepTable] = []
        self.entering: list[torch.Tensor] = []
        self.leaving: list[torch.Tensor] = []
        self.steps: list[int] = []

    def begin(self, table: StepTable) -> None:
        self.tables.append(table)

    def before_step(self, event: StepEvent) -> None:
        self.steps.append(event.step)
        self.entering.append(event.sample.clone())

    def after_step(self, event: StepEvent, next_sample: torch.Tensor) -> None:
        self.leaving.append(next_sample.clone())


def pipeline(scheduler: str = "DDIMScheduler", **options: Any) -> Any:
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()
    if scheduler == "DPMSolverSinglestepScheduler":
        options["lower_order_final"] = True
    return diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler()), getattr(diffusers, scheduler)(
        **options
    )


def sample(name: str, listener: TapListener | None, seeds: list[int], steps: int = 5) -> Any:
    pipe, scheduler = pipeline(name)
    pipe.scheduler = scheduler
    scheduler.set_timesteps(steps)
    generators = run_generators(seeds)
    x_init = initial_noise(pipe, generators)
    return sample_unconditional(
        pipe, x_init=x_init, steps=steps, generators=generators, listener=listener
    )


@pytest.mark.parametrize("name", SCHEDULERS)
def test_outputs_are_bit_identical_and_every_level_is_seen_once(name: str) -> None:
    watch = Watch()
    plain = sample(name, None, [1, 2, 3])
    tapped = sample(name, watch, [1, 2, 3])
    assert torch.equal(plain, tapped)
    assert watch.steps == list(range(5))
    assert len(watch.tables) == 1
    for left, entered in zip(watch.leaving, watch.entering[1:], strict=False):
        assert torch.equal(left, entered)
    assert torch.equal(watch.leaving[-1], tapped)


@pytest.mark.parametrize("name", ["DDPMScheduler", "EulerAncestralDiscreteScheduler"])
def test_noise_of_a_run_does_not_depend_on_its_batch(name: str) -> None:
    together = sample(name, None, [5, 6, 7])
    alone = sample(name, None, [6])
    # Another batch size rounds differently (1e-4), other noise would differ by about 1.
    assert float((together[1] - alone[0]).abs().max()) < 1e-2


def test_a_pipeline_sees_the_same_signature_and_class_name() -> None:
    _, scheduler = pipeline()
    plain = type(scheduler)
    signature = inspect.signature(scheduler.step)
    with Tap(scheduler, TapListener()):
        assert inspect.signature(scheduler.step) == signature
        assert type(scheduler).__name__ == plain.__name__
        assert isinstance(scheduler, plain)
        assert type(pickle.loads(pickle.dumps(scheduler))) is plain
    assert type(scheduler) is plain


def test_it_is_removed_after_an_exception() -> None:
    pipe, _ = pipeline()
    plain = type(pipe.scheduler)
    with pytest.raises(RuntimeError, match="boom"), Tap(pipe, TapListener()):
        raise RuntimeError("boom")
    assert type(pipe.scheduler) is plain


def test_a_second_tap_hears_the_same_run_and_sees_what_the_first_changed() -> None:
    pipe, scheduler = pipeline()
    pipe.scheduler = scheduler
    plain = type(scheduler)
    edit, watch = Edit(2), Watch()
    with Tap(pipe, edit) as tap:
        with Tap(pipe, watch):
            scheduler.set_timesteps(4)
            x_init = initial_noise(pipe, [1])
            sample = x_init
            for t in scheduler.timesteps:
                sample = scheduler.step(sample, t, sample).prev_sample
        with pytest.raises(InputError, match="already attached"):
            tap.__enter__()
        assert type(scheduler) is not plain
    assert watch.steps == [0, 1, 2, 3]
    assert not watch.entering[2].any()
    assert type(scheduler) is plain


def test_a_copy_tells_the_same_listener_and_falls_silent_with_it() -> None:
    _, scheduler = pipeline()
    watch = Watch()
    with Tap(scheduler, watch):
        scheduler.set_timesteps(3)
        copied = copy.deepcopy(scheduler)
        x = torch.randn(1, 1, 4, 4)
        for t in copied.timesteps:
            x = copied.step(torch.zeros_like(x), t, x).prev_sample
        assert watch.steps == [0, 1, 2]
        scheduler.set_timesteps(3)
        scheduler.step(x, scheduler.timesteps[0], x)
        with pytest.raises(InputError, match="two copies"):
            copied.step(x, copied.timesteps[1], x)
    copied.set_timesteps(3)
    copied.step(x, copied.timesteps[0], x)
    assert len(watch.steps) == 4


def test_a_loop_that_leaves_the_schedule_is_refused() -> None:
    _, scheduler = pipeline()
    x = torch.randn(1, 1, 4, 4)
    with Tap(scheduler, TapListener()):
        scheduler.set_timesteps(4)
        with pytest.raises(InputError, match=r"not in scheduler\.timesteps"):
            scheduler.step(x, 3, x)
        scheduler.step(x, scheduler.timesteps[0], x)
        with pytest.raises(InputError, match="leaves the schedule"):
            scheduler.step(x, scheduler.timesteps[2], x)


class Edit(TapListener):
    """Replaces the sample entering one step by zeros, and one model output by ones."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.later: torch.Tensor | None = None

    def before_step(self, event: StepEvent) -> torch.Tensor | None:
        if event.step == self.step:
            self.later = event.sample.clone()
            return torch.ones_like(event.sample)
        return None

    def after_step(self, event: StepEvent, next_sample: torch.Tensor) -> torch.Tensor | None:
        return torch.zeros_like(next_sample) if event.step == self.step - 1 else None


@pytest.mark.parametrize("name", [n for n in SCHEDULERS if n != "DPMSolverSinglestepScheduler"])
def test_an_edit_enters_the_next_step_and_is_not_undone(name: str) -> None:
    edit, watch = Edit(2), Watch()
    edited = sample(name, ListenerChain(edit, watch), [1, 2])
    assert edit.later is not None
    assert not edit.later.any()
    assert not watch.entering[2].any()
    assert not torch.equal(edited, sample(name, None, [1, 2]))


def test_what_a_copy_walks_beside_the_run_is_not_touched_by_an_edit() -> None:
    """The sound of a video, stepped by a copy of a scheduler whose corrector edits would meet."""

    def sound(listener: TapListener) -> torch.Tensor:
        scheduler = diffusers.UniPCMultistepScheduler()
        with Tap(scheduler, listener):
            scheduler.set_timesteps(6)
            beside = copy.deepcopy(scheduler)
            video, heard = torch.ones(1, 4, 3, 3), torch.ones(5, 7)
            for t in scheduler.timesteps:
                video = scheduler.step(0.3 * video, t, video).prev_sample
                heard = beside.step(0.2 * heard, t, heard).prev_sample
        return heard

    assert torch.equal(sound(Edit(3)), sound(TapListener()))


def test_a_scheduler_that_remembers_something_unknown_is_refused_after_an_edit() -> None:
    class Momentum(diffusers.DDIMScheduler):
        velocity: Any = None

        def step(self, model_output: Any, timestep: Any, sample: Any, **rest: Any) -> Any:
            self.velocity = model_output
            return super().step(model_output, timestep, sample, **rest)

    pipe, _ = pipeline()
    pipe.scheduler = Momentum()
    pipe.scheduler.set_timesteps(5)
    x = initial_noise(pipe, [1])
    sample_unconditional(pipe, x_init=x, steps=5, listener=TapListener())
    with pytest.raises(InputError, match="Momentum remembers velocity"):
        sample_unconditional(pipe, x_init=x, steps=5, listener=Edit(2))


def test_an_edit_inside_a_group_of_the_singlestep_solver_is_refused() -> None:
    with pytest.raises(InputError, match="does not allow the sample entering step 1"):
        sample("DPMSolverSinglestepScheduler", Edit(1), [1])


def test_a_learned_variance_is_cut_off_and_put_back() -> None:
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    watch = Watch()

    class One(TapListener):
        def before_step(self, event: StepEvent) -> torch.Tensor:
            assert event.model_output.shape == event.sample.shape
            return torch.ones_like(event.sample)

    x = torch.randn(1, 2, 4, 4)
    with Tap(scheduler, ListenerChain(watch, One())):
        scheduler.set_timesteps(2)
        output = torch.randn(1, 4, 4, 4)
        tapped = scheduler.step(
            output, scheduler.timesteps[0], x, generator=torch.manual_seed(0)
        ).prev_sample
    output[:, :2] = 1
    plain = scheduler.step(output, scheduler.timesteps[0], x, generator=torch.manual_seed(0))
    assert torch.equal(tapped, plain.prev_sample)
    assert torch.equal(watch.entering[0], x)


def test_a_model_output_of_another_shape_is_refused() -> None:
    _, scheduler = pipeline()
    with Tap(scheduler, TapListener()):
        scheduler.set_timesteps(2)
        with pytest.raises(InputError, match="cannot be recorded"):
            scheduler.step(torch.zeros(2, 3), scheduler.timesteps[0], torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"]
)
def test_a_run_may_begin_at_a_checkpoint(name: str) -> None:
    watch, again = Watch(), Watch()
    whole = sample(name, watch, [1, 2])
    pipe, scheduler = pipeline(name)
    pipe.scheduler = scheduler
    late = sample_unconditional(
        pipe, x_init=None, steps=5, start=2, x_start=watch.entering[2], listener=again
    )
    assert torch.equal(whole, late)
    assert again.steps == [2, 3, 4]


@pytest.mark.parametrize("name", ["DDPMScheduler", "DPMSolverMultistepScheduler"])
def test_a_scheduler_with_a_memory_must_begin_at_the_start(name: str) -> None:
    pipe, scheduler = pipeline(name)
    pipe.scheduler = scheduler
    with pytest.raises(InputError, match="start='init'"):
        sample_unconditional(pipe, x_init=None, steps=5, start=2, x_start=torch.zeros(1, 1, 8, 8))


def test_pipelines_that_compare_the_type_itself_find_their_own() -> None:
    """Bria asks ``type(self.scheduler) != FlowMatchEulerDiscreteScheduler``."""
    plain: Any = diffusers.FlowMatchEulerDiscreteScheduler
    scheduler = plain()
    with Tap(scheduler, TapListener()):
        kind: Any = type(scheduler)
        assert kind is not plain
        assert kind == plain
        assert kind != diffusers.DDIMScheduler
        assert {kind: 1}[plain] == 1
    assert type(scheduler) is plain
