"""Pruning delivers what whole runs would have been, and computes nothing twice."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from asced_analysis import calibrate
from asced_analysis.correction import Pruner
from asced_analysis.realism import patch_model
from asced_recorders import Recorder, record
from asced_stores import open_runs
from asced_stores.errors import InputError

STEPS = 8


class Prompted(diffusers.DiffusionPipeline):
    """A pipeline of latents with prompts: each prompt's images have another brightness."""

    def __init__(self, unet: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self, prompt: Any = "", generator: Any = None, num_inference_steps: int = STEPS
    ) -> Any:
        """Sample one image a prompt."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        bright = torch.tensor([len(one) / 10 for one in prompts])[:, None, None, None]
        self.scheduler.set_timesteps(num_inference_steps)
        x = torch.stack([torch.randn((2, 8, 8), generator=one) for one in generator])
        x = x * self.scheduler.init_noise_sigma
        steps = {"generator": generator} if "generator" in self.extra() else {}
        for t in self.scheduler.timesteps:
            entering = self.scheduler.scale_model_input(x, t)
            said = self.unet(entering, t, bright)
            x = self.scheduler.step(said, t, x, return_dict=False, **steps)[0]
        return diffusers.ImagePipelineOutput(images=x)

    def extra(self) -> list[str]:
        """What the scheduler's step takes."""
        import inspect

        return list(inspect.signature(self.scheduler.step).parameters)


class Net(torch.nn.Module):
    """A small network of noise, random but fixed."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first = torch.nn.Conv2d(2, 8, 3, padding=1)
            self.second = torch.nn.Conv2d(8, 2, 3, padding=1)
        self.rows: list[int] = []

    def forward(self, x: torch.Tensor, t: Any, bright: torch.Tensor) -> torch.Tensor:
        """Predict noise."""
        self.rows.append(len(x))
        return 0.9 * x + 0.2 * self.second(torch.tanh(self.first(x) + bright)) * float(t) / 1000


def pipeline(scheduler: str, **options: Any) -> Prompted:
    made = getattr(diffusers, f"{scheduler}Scheduler")(**options)
    pipe = Prompted(Net(), made)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeds(numbers: Any) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(int(one)) for one in numbers]


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Learnt from outcomes of the prompted pipeline, with DDIM."""
    path = tmp_path_factory.mktemp("pruned") / "runs.zarr"
    pipe = pipeline("DDIM", clip_sample=False)
    with Recorder(pipe, path) as recorder:
        for first in range(0, 128, 32):
            prompts = [f"{run}{'a' * (run % 8)}" for run in range(first, first + 32)]
            pipe(prompts, generator=seeds(range(first, first + 32)))
    ends = open_runs(recorder.store)["sample"].values[::2]
    return calibrate(
        recorder.store,
        "outcome",
        false_alarm_rate=0.2,
        window=(0.2, 0.6),
        teacher=patch_model(ends, name="patches of half of the runs"),
    )


@pytest.mark.filterwarnings("ignore::asced_analysis.thresholds.fingerprints.PortabilityWarning")
@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        ("DDIM", {"clip_sample": False}),
        ("DDPM", {"clip_sample": False}),
        ("EulerDiscrete", {}),
        ("EulerAncestralDiscrete", {}),
        ("DPMSolverMultistep", {}),
        ("UniPCMultistep", {}),
        ("LMSDiscrete", {}),
        ("DEISMultistep", {}),
        ("PNDM", {"skip_prk_steps": True}),
    ],
)
def test_finished_runs_are_what_whole_runs_would_have_been(thresholds, scheduler, options):
    pipe = pipeline(scheduler, **options)
    pruned = Pruner(thresholds, draw=4).sample(pipe, prompt=["ab", "abcdefgh"], seed=5)
    whole = pipe(
        ["ab"] * 4 + ["abcdefgh"] * 4, generator=seeds(range(5, 13)), num_inference_steps=STEPS
    ).images
    assert pruned.chosen.tolist() == (pruned.seeds - 5).tolist()
    assert pruned.group.tolist() == [0, 1]
    # one row alone and in a batch of eight differ in rounding
    torch.testing.assert_close(pruned.samples, whole[pruned.chosen], rtol=1e-3, atol=1e-3)
    assert torch.equal(pruned.output.images, pruned.samples)


def test_nothing_is_computed_twice_and_each_prompt_keeps_its_best(thresholds):
    pipe = pipeline("DDIM", clip_sample=False)
    pruned = Pruner(thresholds, draw=4, finish=1).sample(pipe, prompt=["ab", "abcdefgh"])
    seen = pruned.step + 1
    assert pipe.unet.rows == [8] * seen + [2] * (STEPS - seen)
    assert pruned.evaluations == pytest.approx(4 * seen + STEPS - seen)
    assert pruned.chosen.tolist() == [
        pruned.scores[:4].argmin(),
        4 + pruned.scores[4:].argmin(),
    ]
    assert "forward" not in vars(pipe.unet)


def test_several_may_be_finished(thresholds):
    pruner = Pruner(thresholds, draw=3, finish=2)
    pruned = pruner.sample(pipeline("DDIM", clip_sample=False), prompt="abc")
    assert len(pruned.samples) == 2
    assert sorted(pruned.scores)[:2] == sorted(pruned.scores[pruned.chosen])


def test_an_unconditional_model(tmp_path):
    store = record("fashion", tmp_path / "runs.zarr", runs=128, steps=6, batch_size=64)
    made = calibrate(store, "outcome", false_alarm_rate=0.2, window=(0.2, 0.6))
    from asced_recorders import load_pipeline

    pruned = Pruner(made, draw=2).sample(load_pipeline("fashion"), groups=3, num_inference_steps=6)
    assert pruned.samples.shape == (3, 1, 32, 32)
    assert sorted(pruned.group.tolist()) == [0, 1, 2]
    whole = record("fashion", tmp_path / "again.zarr", runs=6, steps=6, batch_size=6)
    ends = open_runs(whole)["sample"].values[pruned.chosen]
    np.testing.assert_allclose(pruned.samples.numpy(), ends, atol=2e-3)


def test_what_cannot_be_is_refused(thresholds):
    with pytest.raises(InputError, match="5 of 4"):
        Pruner(thresholds, draw=4, finish=5)
    with pytest.raises(InputError, match="generator is the pruner's own"):
        Pruner(thresholds).sample(pipeline("DDIM"), prompt="a", generator=[])
    with pytest.raises(InputError, match="differ in number"):
        Pruner(thresholds).sample(pipeline("DDIM"), prompt=["a", "b"], negative_prompt=["c"])
