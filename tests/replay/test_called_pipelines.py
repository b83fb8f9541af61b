"""Replay of pipelines that are called: prompts, guidance, latents."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_pipelines
import torch
from diffusers.image_processor import PixArtImageProcessor, VaeImageProcessor

from asced_analysis.calibration import calibrate
from asced_analysis.correction import Corrector
from asced_analysis.correction.layout_adapter import adapted_tap
from asced_analysis.replay import Branch, branch, exactness, replay
from asced_analysis.replay.agreement import NotReproducedError
from asced_analysis.replay.other_settings import draw_runs
from asced_analysis.replay.planning import detect_recorded
from asced_analysis.replay.recording import Recording
from asced_recorders import Recorder, record
from asced_recorders.pipelines import unseeded
from asced_recorders.pipelines.sampling import run_generators
from asced_recorders.tap.tap import ListenerChain, TapListener
from asced_stores import open_runs
from asced_stores.errors import InputError


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("name", ["stable_diffusion", "sdxl"])
def test_latent_pipelines_come_back_and_are_corrected(name: str, tmp_path: Path) -> None:
    pipe = quiet(getattr(tiny_pipelines, name)())
    store = record(pipe, tmp_path / "r.zarr", runs=4, steps=6, batch_size=2, prompts=["a b", "c d"])
    replayed = replay(store, tmp_path / "n.zarr", strategy="none", pipeline=pipe)
    assert exactness(replayed).bit_exact
    mask = np.zeros(store.spec.sample_shape[-2:], bool)
    mask[1:4, 1:4] = True
    replayed = replay(store, tmp_path / "c.zarr", masks={1: mask}, step=3, pipeline=pipe)
    same = open_runs(replayed.path)["difference"].values == 0
    assert same.tolist() == [True, False, True, True]


class OneGenerator(diffusers.StableDiffusionPipeline):
    """Takes no list of generators, as Wan's VACE pipeline does not."""

    def prepare_latents(self, *args: Any) -> Any:
        assert not isinstance(args[6], list)
        return super().prepare_latents(*args)


def test_one_run_is_called_with_one_generator(tmp_path: Path) -> None:
    pipe = quiet(tiny_pipelines.stable_diffusion())
    pipe.__class__ = OneGenerator
    store = record(pipe, tmp_path / "r.zarr", runs=2, steps=2, batch_size=1, prompts=["a b"])
    replayed = replay(store, tmp_path / "n.zarr", strategy="none", pipeline=pipe)
    assert exactness(replayed).bit_exact
    assert len(set(open_runs(store.path)["x_init"].values[:, 0, 0, 0])) == 2
    masks = dict.fromkeys((0, 1), np.eye(8, dtype=bool))
    out = branch(store, tmp_path / "b.zarr", [Branch(1)], masks=masks, pipeline=pipe)
    assert open_runs(out)["run"].values.tolist() == [0, 1]


class Depth(diffusers.StableDiffusionPipeline):
    """Shows what it decodes in its own way and hands over no latents, as Marigold does."""

    nearest = 1.0

    def __call__(
        self,
        prompt: Any = None,
        num_inference_steps: int = 50,
        generator: Any = None,
        output_type: str = "np",
    ) -> Any:
        assert output_type in ("np", "pt")
        call = {"num_inference_steps": num_inference_steps, "generator": generator}
        latents = super().__call__(prompt, **call, output_type="latent").images
        return SimpleNamespace(prediction=self.shown(latents))

    @torch.no_grad()
    def shown(self, latents: torch.Tensor) -> Any:
        depth = self.vae.decode(latents).sample.mean(1).sigmoid()
        return (self.nearest - depth).abs()[..., None].numpy()


def test_a_pipeline_that_decodes_in_its_own_way_is_asked_to(tmp_path: Path) -> None:
    pipe = quiet(tiny_pipelines.stable_diffusion())
    pipe.__class__ = Depth
    store = record(pipe, tmp_path / "r.zarr", runs=2, steps=3, batch_size=2, prompts=["a b", "c"])
    assert store.spec.image_shape == (16, 16, 1)
    mask = np.ones(store.spec.sample_shape[-2:], bool)
    replayed = replay(store, tmp_path / "c.zarr", masks={1: mask}, step=2, pipeline=pipe)
    found = open_runs(replayed.path)
    assert (found["difference"].values > 0).tolist() == [False, True]
    shown = pipe.shown(torch.from_numpy(found["sample"].values)) * 255
    np.testing.assert_allclose(found["image"].values, shown, atol=1)
    pipe.nearest = 0.0
    with pytest.raises(InputError, match=r"recorded samples decode to images that are .* of 255"):
        replay(store, tmp_path / "n.zarr", strategy="none", pipeline=pipe)
    assert not (tmp_path / "n.zarr").exists()


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A pipeline and two runs of it with their images."""
    pipe = quiet(tiny_pipelines.stable_diffusion())
    path = tmp_path_factory.mktemp("painted") / "r.zarr"
    record(pipe, path, runs=2, steps=2, batch_size=2, prompts=["a b"], fields=FINISHED)
    return pipe, path


FINISHED = ("x_init", "sample", "image")


@pytest.fixture
def rounded(painted: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path]:
    """The same where the autoencoder rounds otherwise, as on another device."""
    pipe, path = painted
    decode = pipe.vae.decode

    def otherwise(*args: Any, **options: Any) -> Any:
        (found,) = decode(*args, **options)
        found[..., 0, 0] += 8 / 255  # of -1..1
        return (found,)

    monkeypatch.setattr(pipe.vae, "decode", otherwise)
    return pipe, path


def latents(pipe: Any, batch: Any) -> Any:
    """The call of these runs, which decodes nothing."""
    generator = run_generators(batch.seeds.tolist())
    prompts = batch.scalars["prompt"].tolist()
    return pipe(prompts, num_inference_steps=2, generator=generator, output_type="latent")


@pytest.mark.parametrize("call", [None, latents])
def test_the_autoencoder_decodes_what_another_device_rounds_otherwise(
    call: Any, rounded: tuple[Any, Path], tmp_path: Path
) -> None:
    pipe, path = rounded
    calls: list[Any] = []
    hook = pipe.vae.post_quant_conv.register_forward_hook(lambda *_: calls.append(1))
    out = replay(path, tmp_path / "n.zarr", strategy="none", pipeline=pipe, call=call)
    hook.remove()
    assert exactness(out).bit_exact
    recorded, again = (open_runs(each)["image"].values.astype(int) for each in (path, out.path))
    assert 1 < np.abs(again - recorded).max() <= 5
    decoded = 3 if call is None else 2  # to compare, by the call too, and for the new store
    assert len(calls) == decoded


def test_an_autoencoder_that_fails_is_named(
    painted: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, path = painted
    given: dict[str, Any] = {"strategy": "none", "pipeline": pipe, "call": latents}
    said = RuntimeError("no kernel for this layer")

    def fails(*_: Any, **__: Any) -> Any:
        raise said

    monkeypatch.setattr(pipe.vae, "decode", fails)
    with pytest.raises(InputError, match="failed: RuntimeError: no kernel for") as caught:
        replay(path, tmp_path / "n.zarr", **given)
    assert caught.value.__cause__ is said
    said = torch.OutOfMemoryError("out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        replay(path, tmp_path / "n.zarr", **given)
    assert not (tmp_path / "n.zarr").exists()


def test_marks_that_a_pipeline_adds_to_its_images_are_kept(
    painted: tuple[Any, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Marking(VaeImageProcessor):
        def postprocess(self, image: torch.Tensor, **options: Any) -> Any:
            if options["output_type"] != "latent":
                image[..., :2, :2] = 1.0
            return super().postprocess(image, **options)

    pipe = copy.copy(painted[0])
    pipe.image_processor = Marking(vae_scale_factor=2)
    store = record(
        pipe, tmp_path / "r.zarr", runs=1, steps=2, batch_size=1, prompts=["a"], fields=FINISHED
    )
    with caplog.at_level("INFO"):
        again = replay(store, tmp_path / "n.zarr", strategy="none", pipeline=pipe)
    images = open_runs(again.path)["image"].values
    assert (images[:, :2, :2] == 255).all()
    np.testing.assert_array_equal(images, open_runs(store.path)["image"].values)
    assert caplog.text.count("makes its images in a way of its own") == 1


class Undelivered(Depth):
    """Knows latents, and breaks where it is asked for them, as Kandinsky 3 does."""

    def __call__(
        self,
        prompt: Any = None,
        num_inference_steps: int = 50,
        generator: Any = None,
        output_type: str = "np",
    ) -> Any:
        call = {"num_inference_steps": num_inference_steps, "generator": generator}
        latents = diffusers.StableDiffusionPipeline.__call__(
            self, prompt, **call, output_type="latent"
        )
        if output_type == "latent":
            raise UnboundLocalError("image")
        return SimpleNamespace(prediction=self.shown(latents.images))


@pytest.fixture(scope="module")
def undelivered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Two runs without images of a pipeline that cannot hand over latents."""
    pipe = quiet(tiny_pipelines.stable_diffusion())
    pipe.__class__ = Undelivered
    path = tmp_path_factory.mktemp("undelivered") / "r.zarr"
    given: dict[str, Any] = {"runs": 2, "steps": 3, "batch_size": 2, "checkpoints": (2,)}
    fields = ("eps", "x0", "x_init", "checkpoint_sample", "sample")
    record(pipe, path, prompts=["a b", "c"], fields=fields, **given)
    return pipe, path


def test_latents_that_are_not_handed_over_are_asked_for_once(
    undelivered: tuple[Any, Path], tmp_path: Path
) -> None:
    pipe, path = undelivered
    calls: list[int] = []
    hook = pipe.unet.conv_in.register_forward_hook(lambda *_: calls.append(1))
    recording = Recording(path)
    runs, seeds = np.arange(2), recording.dataset["seed"].values
    for evaluations in (4, 3):  # one to come to the end of the first call
        calls.clear()
        drawn = draw_runs(recording, pipe, runs, seeds, steps=3)
        assert len(calls) == evaluations
        np.testing.assert_array_equal(drawn.ends, recording.dataset["sample"].values)
    hook.remove()
    again = replay(path, tmp_path / "n.zarr", strategy="none", pipeline=pipe)
    assert exactness(again).bit_exact


def test_branches_leave_runs_whose_latents_are_not_handed_over(
    undelivered: tuple[Any, Path], tmp_path: Path
) -> None:
    pipe, path = undelivered
    masks = {1: np.eye(8, dtype=bool)}
    out = branch(path, tmp_path / "b.zarr", [Branch(1), Branch(2)], masks=masks, pipeline=pipe)
    for i, step in enumerate((1, 2)):
        one = replay(path, tmp_path / f"{step}.zarr", masks=masks, step=step, pipeline=pipe)
        expected = open_runs(one)["sample"].sel(run=[1])
        found = open_runs(out)["branch_sample"].isel(branch=i)
        np.testing.assert_allclose(found, expected, atol=1e-3)  # another batch


def test_what_breaks_in_a_sampler_is_not_taken_for_latents(
    undelivered: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, path = undelivered
    recording = Recording(path)
    monkeypatch.setattr(pipe.vae, "decode", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draw_runs(recording, pipe, np.arange(2), np.arange(2), steps=3)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), InputError("not so")])
def test_a_call_that_fails_for_another_reason_is_not_made_again(
    undelivered: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Of memory, or an error of our own: it is not for want of latents."""
    pipe, path = undelivered
    recording = Recording(path)
    calls: list[int] = []
    plain = diffusers.StableDiffusionPipeline.__call__

    def failing(self: Any, *args: Any, **given: Any) -> Any:
        plain(self, *args, **given)
        calls.append(1)
        raise error

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "__call__", failing)
    with pytest.raises(type(error)):
        draw_runs(recording, pipe, np.arange(2), np.arange(2), steps=3)
    assert calls == [1]
    assert not recording.own_decoding


def test_a_cache_that_holds_the_pipeline_needs_the_recorded_scheduler(tmp_path: Path) -> None:
    pipe = quiet(tiny_pipelines.wan())
    cache = diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(10, 999),
        current_timestep_callback=lambda: pipe.current_timestep,
    )
    pipe.transformer.enable_cache(cache)
    with Recorder(pipe, tmp_path / "r.zarr", fields=("x_init", "sample")):
        generator = torch.Generator().manual_seed(1)
        pipe(**pair_of_one(), num_frames=1, num_inference_steps=3, generator=generator)
    given: dict[str, Any] = {"strategy": "none", "pipeline": pipe}
    assert exactness(replay(tmp_path / "r.zarr", tmp_path / "n.zarr", **given)).bit_exact
    recorded, pipe.scheduler = pipe.scheduler, diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(InputError, match="asks the given pipeline for its timestep"):
        replay(tmp_path / "r.zarr", tmp_path / "o.zarr", **given)
    pipe.scheduler = recorded
    assert exactness(replay(tmp_path / "r.zarr", tmp_path / "o.zarr", **given)).bit_exact


def test_a_call_may_hold_the_pipeline_itself_where_its_scheduler_is_the_recorded_one(
    tmp_path: Path,
) -> None:
    pipe = quiet(tiny_pipelines.stable_diffusion())

    def call(*_: Any) -> Any:
        return pipe("a b", num_inference_steps=2, generator=run_generators([4]))

    with Recorder(pipe, tmp_path / "r.zarr", fields=("x_init", "sample")):
        call()
    given: dict[str, Any] = {"strategy": "none", "pipeline": pipe, "call": call}
    assert exactness(replay(tmp_path / "r.zarr", tmp_path / "n.zarr", **given)).bit_exact
    pipe.scheduler = diffusers.DDIMScheduler()
    with pytest.raises(InputError, match="did not sample with the pipeline that it is given"):
        replay(tmp_path / "r.zarr", tmp_path / "o.zarr", **given)


class Binned(VaeImageProcessor):
    """Scales what was decoded to the size that was asked for, as PixArt and Sana do."""

    def postprocess(self, image: torch.Tensor, **options: Any) -> Any:
        if options["output_type"] != "latent":
            image = PixArtImageProcessor.resize_and_crop_tensor(image, 8, 12)
        return super().postprocess(image, **options)


def test_images_that_a_pipeline_scales_are_scaled_again(tmp_path: Path) -> None:
    pipe = quiet(tiny_pipelines.stable_diffusion())
    pipe.image_processor = Binned(vae_scale_factor=2)
    store = record(pipe, tmp_path / "r.zarr", runs=1, steps=2, batch_size=1, prompts=["a b"])
    replayed = replay(store, tmp_path / "n.zarr", strategy="none", pipeline=pipe)
    recorded, again = (open_runs(each.path)["image"].values for each in (store, replayed))
    assert recorded.shape == (1, 12, 8, 3)
    np.testing.assert_array_equal(again, recorded)


def test_noise_that_no_seed_tells_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = quiet(tiny_pipelines.flux())
    sizes = {"height": 8, "width": 16, "num_inference_steps": 2, "output_type": "latent"}
    given = {"prompt_embeds": embeds(1), "pooled_prompt_embeds": embeds(1)[:, 0], **sizes}
    for name, kind in (("plain", "EulerDiscrete"), ("drawing", "LCM")):
        pipe.scheduler = getattr(diffusers, f"FlowMatch{kind}Scheduler")()
        with Recorder(pipe, tmp_path / name):
            pipe(**given, generator=torch.Generator().manual_seed(5))
    assert "unseeded_noise" not in open_runs(tmp_path / "plain").attrs
    assert open_runs(tmp_path / "drawing").attrs["unseeded_noise"] is True
    assert caplog.text.count("torch's own generator") == 1
    with pytest.raises(NotReproducedError, match="noise from torch's own generator"):
        replay(tmp_path / "drawing", tmp_path / "again", strategy="none", pipeline=pipe)


def test_generators_of_every_device_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by a stand-in for torch's module of a device: two devices are seldom at hand."""
    states = [torch.zeros(2), torch.zeros(2)]
    module = SimpleNamespace(get_rng_state_all=lambda: [state.clone() for state in states])
    monkeypatch.setattr(unseeded, "default_device", lambda: "cuda")
    monkeypatch.setattr(torch, "get_device_module", lambda _: module)
    watch = unseeded.NoiseWatch(torch.Generator())
    assert watch.facts() == {}
    states[1] += 1
    assert watch.facts() == {"unseeded_noise": True}


def test_steps_that_are_too_few_are_refused_before_the_network_is_asked() -> None:
    pipe = quiet(tiny_pipelines.stable_diffusion())
    asked: list[int] = []
    pipe.unet.register_forward_pre_hook(lambda *_: asked.append(1))
    corrector = Corrector(None, step=5)
    corrector.assign([0], masks=np.ones((1, 8, 8), bool))
    with pytest.raises(InputError, match="T_c is step 5"), corrector.attach(pipe):
        pipe("a b", num_inference_steps=4, output_type="latent")
    assert not asked
    with corrector.attach(pipe):
        pipe("a b", num_inference_steps=6, output_type="latent")
    assert asked


def embeds(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 4, 8, generator=torch.Generator().manual_seed(seed))


def pair() -> dict[str, Any]:
    """Embedded prompts of two runs."""
    return {"prompt_embeds": embeds(2), "negative_prompt_embeds": embeds(2, 1)}


def pair_of_one() -> dict[str, Any]:
    """The same of one run, and the size of its image."""
    return {name: rows[:1] for name, rows in pair().items()} | SIZE


SIZE = {"height": 16, "width": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    # arguments of the call, by builder
    "sd3": {
        **pair(),
        **SIZE,
        "pooled_prompt_embeds": embeds(2)[:, 0],
        "negative_pooled_prompt_embeds": embeds(2, 1)[:, 0],
    },
    "flux": {
        "prompt_embeds": embeds(2),
        "pooled_prompt_embeds": embeds(2)[:, 0],
        "height": 8,
        "width": 16,
    },
    "dit": {"class_labels": [3, 5], "guidance_scale": 3.0},
    "animatediff": {"prompt": ["a cat", "a dog"], "num_frames": 3, **SIZE},
    "cogvideo": {**pair(), **SIZE, "num_frames": 8, "max_sequence_length": 4},
    "wan": {**pair(), **SIZE, "num_frames": 5},
    "pixart": {
        **pair(),
        **SIZE,
        "prompt": None,
        "negative_prompt": None,
        "prompt_attention_mask": torch.ones(2, 4),
        "negative_prompt_attention_mask": torch.ones(2, 4),
        "use_resolution_binning": False,
    },
}
STEPS, TARGET = 6, 3


def recorded(name: str, path: Path) -> tuple[Any, Any]:
    """A tiny pipeline, its two runs, and how to call it again."""
    torch.manual_seed(0)
    pipe = quiet(getattr(tiny_pipelines, name)())

    def call(pipe: Any, batch: Any) -> Any:
        return pipe(
            **FAMILIES[name],
            generator=run_generators([int(seed) for seed in batch.seeds]),
            num_inference_steps=STEPS,
            output_type="latent",
        )

    with Recorder(pipe, path, checkpoints=(2, TARGET)):
        call(pipe, SimpleNamespace(seeds=[5, 6]))
    return pipe, call


class Entering(TapListener):
    """Keeps the sample entering a step, as the listener changed it and as the pipeline took it."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.found: list[torch.Tensor] = []

    def before_step(self, event: Any) -> None:
        if event.step == self.step:
            self.found.append(event.sample.clone())

    def after_step(self, event: Any, next_sample: torch.Tensor) -> None:
        if event.step + 1 == self.step:
            self.found.append(next_sample.clone())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_comes_back_and_is_corrected(name: str, tmp_path: Path) -> None:
    pipe, call = recorded(name, tmp_path / "r.zarr")
    kept = type(pipe), type(pipe.scheduler), pipe.components.keys()
    options: dict[str, Any] = {"pipeline": pipe, "call": call}
    again = replay(tmp_path / "r.zarr", tmp_path / "n.zarr", strategy="none", **options)
    assert exactness(again).bit_exact
    recording = Recording(tmp_path / "r.zarr")
    batch = next(recording.batches())
    rows, columns = recording.spec.sample_shape[-2:]
    mask = np.zeros((rows, columns), bool)
    mask[: rows // 2, : columns // 2] = True
    replayed = replay(
        tmp_path / "r.zarr", tmp_path / "c.zarr", masks={1: mask}, step=TARGET, **options
    )
    ds = open_runs(replayed.path)
    assert (ds["difference"].values > 0).tolist() == [False, True]
    assert (ds["mask"].values[1] > 0).tolist() == mask.tolist()

    # the edit itself: inside the mask alone, and the pipeline goes on from it
    corrector, seen = Corrector(None, step=TARGET), Entering(TARGET)
    corrector.assign(
        batch.runs, masks=np.stack([mask & False, mask]), flagged=np.array([False, True])
    )
    with adapted_tap(pipe, ListenerChain(corrector, seen)):
        call(pipe, batch)
    made, taken = seen.found
    plain = torch.from_numpy(recording.checkpoint(batch, TARGET))
    assert (made == taken).all()
    edited = (made != plain).flatten(1, -3).any(1)
    assert not edited[0].any()
    assert (edited[1].numpy() == mask).all()
    assert kept == (type(pipe), type(pipe.scheduler), pipe.components.keys())


@pytest.mark.parametrize(
    ("name", "start"),
    [("sd3", 2), ("flux", TARGET), ("dit", 2), ("animatediff", TARGET), ("cogvideo", 2)],
)
def test_a_call_begins_at_a_checkpoint(name: str, start: int, tmp_path: Path) -> None:
    pipe, call = recorded(name, tmp_path / "r.zarr")
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    calls: list[int] = []
    hook = network.register_forward_pre_hook(lambda *_: calls.append(1))
    again = replay(
        tmp_path / "r.zarr",
        tmp_path / "n.zarr",
        strategy="none",
        start=start,
        pipeline=pipe,
        call=call,
    )
    hook.remove()
    assert exactness(again).bit_exact
    assert "forward" not in vars(network)
    assert open_runs(again.path)["evaluations"].values.tolist() == [STEPS - start + 1] * 2
    rows, columns = again.spec.sample_shape[-2:]
    mask = np.zeros((rows, columns), bool)
    mask[: rows // 2] = True
    options: dict[str, Any] = {"masks": {0: mask}, "step": TARGET, "pipeline": pipe, "call": call}
    for strategy in ("ttc", "state_replacement") if start == TARGET else ("ttc",):
        whole = replay(
            tmp_path / "r.zarr", tmp_path / f"{strategy}.zarr", strategy=strategy, **options
        )
        part = replay(
            tmp_path / "r.zarr",
            tmp_path / f"{strategy}-{start}.zarr",
            strategy=strategy,
            start=start,
            **options,
        )
        found = open_runs(part.path)
        assert (found["difference"].values > 0).tolist() == [True, False]
        assert (found["sample"].values == open_runs(whole.path)["sample"].values).all()


@pytest.mark.parametrize("name", ["wan", "pixart"])
def test_solver_history_refuses_a_start_in_the_middle(name: str, tmp_path: Path) -> None:
    pipe, call = recorded(name, tmp_path / "r.zarr")
    with pytest.raises(InputError, match="start at init"):
        replay(
            tmp_path / "r.zarr",
            tmp_path / "n.zarr",
            strategy="none",
            start=2,
            pipeline=pipe,
            call=call,
        )


def test_called_pipelines_branch_and_noise_what_is_finished(
    rounding: Callable[[Any], float], tmp_path: Path
) -> None:
    pipe = quiet(tiny_pipelines.stable_diffusion())
    path = tmp_path / "r.zarr"
    record(pipe, path, runs=4, steps=6, batch_size=4, prompts=["a b", "c d"], checkpoints=(2,))
    mask = np.zeros((8, 8), bool)
    mask[1:5, 1:5] = True
    options: dict[str, Any] = {"masks": {1: mask, 2: mask}, "pipeline": pipe}
    replayed = branch(path, tmp_path / "b.zarr", [Branch(step=2), Branch(step=4)], **options)
    ds = open_runs(replayed.path)
    for i, step in enumerate((2, 4)):
        alone = replay(path, tmp_path / f"{step}.zarr", step=step, **options)
        expected = open_runs(alone.path)["sample"].sel(run=[1, 2]).values
        found = ds["branch_sample"].values[:, i]
        np.testing.assert_allclose(found, expected, rtol=0, atol=rounding(path))
    noised = open_runs(
        replay(path, tmp_path / "s.zarr", strategy="noise_denoise", step=3, **options).path
    )
    away = np.abs(noised["sample"].values - open_runs(path)["sample"].values).max(1) > 0
    assert (away == (noised["mask"].values > 0)).all()
    assert noised["evaluations"].values.tolist() == [0, 4, 4, 0]


def test_detection_sees_the_frames_of_a_video(tmp_path: Path) -> None:
    """The loop flags what the store flags; a mask unites those of the flagged frames."""
    torch.manual_seed(0)
    pipe = quiet(tiny_pipelines.animatediff())
    path = tmp_path / "r.zarr"
    call = {"num_frames": 3, **SIZE}
    with Recorder(pipe, path):
        for begin in range(0, 40, 8):
            pipe(
                [f"cat {number}" for number in range(begin, begin + 8)],
                **call,
                num_inference_steps=8,
                generator=run_generators(list(range(begin, begin + 8))),
                output_type="latent",
            )
    thresholds = calibrate(path, "calibrated", false_alarm_rate=0.4, window=(0.2, 0.75))
    plan = detect_recorded(Recording(path), thresholds, last_step=5)
    corrector = Corrector(thresholds, step=6, grow=0)
    with corrector.attach(pipe):
        pipe(
            [f"cat {number}" for number in range(8)],
            **call,
            num_inference_steps=8,
            generator=run_generators(list(range(8))),
            output_type="latent",
        )
    assert 0 < len(plan.masks) < 40
    for report in corrector.report:
        assert report.flagged == (report.run in plan.masks)
        assert report.score == pytest.approx(plan.scores[report.run], rel=1e-3)
        if report.flagged:
            assert (report.mask == plan.masks[report.run]).all()


def test_a_call_of_one_s_own(tiny_pipeline: Any, tmp_path: Path) -> None:
    from asced_analysis.replay.calls import call_again
    from asced_analysis.replay.recording import Batch, Recording

    path = tmp_path / "runs.zarr"
    with Recorder(tiny_pipeline, path):
        tiny_pipeline(batch_size=3, generator=run_generators([5, 6, 7]), num_inference_steps=8)

    def call(seeds: list[int]) -> Any:
        return lambda pipe, batch: pipe(
            batch_size=len(batch.runs), generator=run_generators(seeds), num_inference_steps=8
        )

    recording = Recording(path)
    batch: Batch = next(recording.batches())
    recording.call = call([5, 6, 7])
    ends = call_again(recording, batch, tiny_pipeline, None)
    assert (ends == recording.read(batch, "sample")).all()
    recording.call = call([1, 2, 3])
    with pytest.raises(InputError, match="did not begin with the recorded noise"):
        call_again(recording, batch, tiny_pipeline, None)
