"""Pruning delivers what whole runs would have been, and computes nothing twice."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_pipelines
import torch

from asced_analysis import calibrate
from asced_analysis.correction import Pruner
from asced_analysis.realism import patch_model
from asced_analysis.replay import replay
from asced_cli.main import run
from asced_recorders import Recorder, load_pipeline, record
from asced_stores import open_runs
from asced_stores.errors import InputError

STEPS = 8
portable = pytest.mark.filterwarnings(
    "ignore::asced_analysis.thresholds.fingerprints.PortabilityWarning"
)


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
        own = generator if isinstance(generator, list) else [generator]  # as diffusers' own take it
        x = torch.stack([torch.randn((2, 8, 8), generator=one) for one in own])
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
        self.left: int | None = None

    def forward(self, x: torch.Tensor, t: Any, bright: torch.Tensor) -> torch.Tensor:
        """Predict noise."""
        self.rows.append(len(x))
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("power is gone")
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


@portable
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


def test_an_unconditional_model(tiny_folder, tmp_path):
    store = record(str(tiny_folder), tmp_path / "runs.zarr", runs=128, steps=6, batch_size=64)
    half = patch_model(open_runs(store)["sample"].values[::2], name="patches of half of the runs")
    taught = {"teacher": half, "window": (0.2, 0.6), "outcome": {"epochs": 3}}
    made = calibrate(store, "outcome", false_alarm_rate=0.2, **taught)
    pipe = load_pipeline(str(tiny_folder))
    pruned = Pruner(made, draw=2).sample(pipe, groups=3, num_inference_steps=6)
    assert pruned.samples.shape == (3, 1, 16, 16)
    assert sorted(pruned.group.tolist()) == [0, 1, 2]
    whole = record(pipe, tmp_path / "again.zarr", runs=6, steps=6, batch_size=6)
    ends = open_runs(whole)["sample"].values[pruned.chosen]
    np.testing.assert_allclose(pruned.samples.numpy(), ends, atol=2e-3)


def test_what_cannot_be_is_refused(thresholds):
    with pytest.raises(InputError, match="5 of 4"):
        Pruner(thresholds, draw=4, finish=5)
    with pytest.raises(InputError, match="generator is the pruner's own"):
        Pruner(thresholds).sample(pipeline("DDIM"), prompt="a", generator=[])
    with pytest.raises(InputError, match="differ in number"):
        Pruner(thresholds).sample(pipeline("DDIM"), prompt=["a", "b"], negative_prompt=["c"])


KEPT = ("eps", "x0", "x_init", "sample")
PROMPTS = ["ab", "abcdefgh", "abcd"]


def assert_same_runs(pruned: Any, plain: Any) -> None:
    """Every field at every step, but for the rounding of another batch."""
    rows = pruned["seed"].values - int(plain["seed"].values[0])
    for name in KEPT:
        np.testing.assert_allclose(
            pruned[name].values, plain[name].values[rows], rtol=2e-3, atol=2e-3, err_msg=name
        )


@portable
@pytest.mark.parametrize(
    ("scheduler", "options"),
    [("DDIM", {"clip_sample": False}), ("DDPM", {"clip_sample": False}), ("UniPCMultistep", {})],
)
def test_a_recording_holds_the_chosen_runs_from_their_first_step(
    thresholds, scheduler, options, tmp_path
):
    pipe = pipeline(scheduler, **options)
    how = {"steps": STEPS, "seed": 5, "fields": KEPT}
    pruner = Pruner(thresholds, draw=4)
    store = record(pipe, tmp_path / "p.zarr", prompts=PROMPTS, pruning=pruner, batch_size=2, **how)
    rows = list(pipe.unet.rows)
    expected = pruner.sample(pipe, prompt=PROMPTS, seed=5)
    seen = expected.step + 1
    assert rows == [8] * seen + [2] * (STEPS - seen) + [4] * seen + [1] * (STEPS - seen)
    found = open_runs(store)
    assert found["seed"].values.tolist() == expected.seeds.tolist()
    assert found["prompt"].values.tolist() == PROMPTS
    each = [prompt for prompt in PROMPTS for _ in range(4)]
    plain = record(pipe, tmp_path / "a.zarr", prompts=each, batch_size=12, **how)
    assert_same_runs(found, open_runs(plain))
    said = found.attrs["pruning"]
    assert (said["draw"], said["finish"], said["within"]) == (4, 1, "prompt or class")
    assert found.attrs["model_fingerprint"] == open_runs(plain).attrs["model_fingerprint"]


@portable
def test_a_pruned_recording_goes_on_with_the_same_choice_only(thresholds, tmp_path):
    pipe = pipeline("DDIM", clip_sample=False)
    out = tmp_path / "p.zarr"

    def again(draw: int = 3, **more: Any) -> Any:
        pruner = Pruner(thresholds, draw=draw, finish=2)
        return record(
            pipe,
            out,
            prompts=[*PROMPTS, "a"],
            pruning=pruner,
            batch_size=4,
            steps=STEPS,
            fields=KEPT,
            **more,
        )

    pipe.unet.left = STEPS + 1
    with pytest.raises(RuntimeError, match="power is gone"):
        again()
    assert len(open_runs(out)["run"]) == 4
    pipe.unet.left = None
    with pytest.raises(InputError, match="pruning"):
        again(draw=4, resume=True)
    whole = open_runs(again(resume=True))
    assert whole["prompt"].values.tolist() == [p for p in [*PROMPTS, "a"] for _ in range(2)]
    groups = (whole["seed"].values // 3).tolist()
    assert groups == [0, 0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(InputError, match="batch_size is 3"):
        record(
            pipe,
            tmp_path / "odd.zarr",
            prompts=PROMPTS,
            pruning=Pruner(thresholds, draw=4, finish=2),
            batch_size=3,
        )


@pytest.fixture(scope="module")
def colour(make_tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A DDPM of colour images, and thresholds of its runs."""
    pipe = make_tiny("DDPM", 3)
    path = tmp_path_factory.mktemp("colour") / "runs.zarr"
    store = record(pipe, path, runs=64, steps=STEPS, batch_size=64)
    return pipe, calibrate(store, "calibrated", false_alarm_rate=0.2, window=(0.2, 0.6))


def test_colour_images_compete_within_equal_content(colour, tmp_path):
    pipe, made = colour
    pruner = Pruner(made, draw=3, finish=1)
    how = {"runs": 4, "steps": STEPS, "batch_size": 4, "seed": 100}
    found = open_runs(record(pipe, tmp_path / "p.zarr", pruning=pruner, **how))
    expected = pruner.sample(pipe, groups=4, seed=100, num_inference_steps=STEPS)
    assert found["seed"].values.tolist() == expected.seeds.tolist()
    assert found.attrs["pruning"]["within"] == "content"
    plain = record(pipe, tmp_path / "a.zarr", **{**how, "runs": 12, "batch_size": 12})
    assert_same_runs(found, open_runs(plain))
    every = Pruner(made, draw=3, finish=3).sample(
        pipe, groups=4, seed=100, num_inference_steps=STEPS
    )  # the same batch to the end: bit by bit
    assert np.array_equal(every.samples, open_runs(plain)["sample"].values[every.chosen])
    twin = replay(tmp_path / "p.zarr", tmp_path / "t.zarr", strategy="none", pipeline=pipe)
    assert np.abs(open_runs(twin.path)["difference"].values).max() < 1e-2


@portable
def test_stable_diffusion_with_guidance_goes_on_bit_by_bit(tmp_path):
    """All draws are finished, so that the batch, and with it every rounding, is the same."""
    pipe = tiny_pipelines.stable_diffusion()
    pipe.set_progress_bar_config(disable=True)
    prompts = [f"{one} {other}" for one in "abcd" for other in "abcd"]
    runs = record(pipe, tmp_path / "r.zarr", prompts=prompts, runs=32, steps=6, batch_size=16)
    path = tmp_path / "thresholds.json"
    calibrate(runs, "calibrated", false_alarm_rate=0.2, window=(0.2, 0.6)).save(path)
    pruner = Pruner.from_file(path, draw=2, finish=2)
    pruned = pruner.sample(pipe, prompt=["a b", "c d"], num_inference_steps=6, output_type="latent")
    plain = pipe(
        ["a b", "a b", "c d", "c d"],
        generator=seeds(range(4)),
        num_inference_steps=6,
        output_type="latent",
    ).images[pruned.chosen]
    alone = Pruner.from_file(path, draw=2, finish=1)
    best = alone.sample(pipe, prompt=["a b", "c d"], num_inference_steps=6, output_type="latent")
    np.testing.assert_allclose(pruned.samples[::2], best.samples, rtol=1e-3, atol=1e-4)
    order = np.argsort(pruned.chosen)
    assert torch.equal(pruned.samples[order], plain[order])
    assert pruned.evaluations == 6


def test_the_command_prunes(colour, tmp_path, capsys):
    pipe, made = colour
    pipe.save_pretrained(tmp_path / "colour")
    made.save(tmp_path / "thresholds.json")
    out = tmp_path / "p.zarr"
    line = ["record", "--pipeline", str(tmp_path / "colour"), "--out", str(out), "--runs", "4"]
    line += ["--steps", str(STEPS), "--batch-size", "4", "--seed", "100"]
    given = ["--thresholds", str(tmp_path / "thresholds.json")]
    assert run([*line, *given, "--prune", "3:1"]) == 0
    expected = Pruner(made, draw=3).sample(pipe, groups=4, seed=100, num_inference_steps=STEPS)
    assert open_runs(out)["seed"].values.tolist() == expected.seeds.tolist()
    capsys.readouterr()
    for more, said in (
        ([*given], "--keep flagged or --prune"),
        (["--prune", "3:1"], "--prune needs --thresholds"),
        ([*given, "--prune", "three"], "4:1"),
        ([*given, "--prune", "3:4"], "4 of 3 draws"),
    ):
        assert run([*line, *more, "--overwrite"]) == 2
        assert said in capsys.readouterr().err
