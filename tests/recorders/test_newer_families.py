"""Pipelines of 2026 and packed latents are recorded with the facts of what they did."""

from __future__ import annotations

import pkgutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from modular_families import MODULAR, ltx, modular, modular_version
from newer_families import FAMILIES, SQUARE, Family, picture, wan
from PIL import Image
from tiny_pipelines import sd3, sdxl

from asced_analysis.replay import replay
from asced_recorders import Recorder
from asced_recorders.pipelines.decoding import to_image
from asced_recorders.tap.layout_choice import layout_of
from asced_stores import open_runs
from asced_stores.errors import InputError

pytestmark = [  # of flex attention, which Wan-Animate 2 imports and calls without compiling
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.nn.attention.flex_attention"),
]

STEPS = 3
ENDS = ("latents", "images", "frames", "video")  # of a modular call, or a classic one


def call(pipe: Any, family: Family, output_type: str = "pt") -> Any:
    given = {"output_type": "pt" if hasattr(pipe, "blocks") else output_type, **family.call}
    output = pipe(**given, generator=torch.Generator().manual_seed(7), num_inference_steps=STEPS)
    values = output.values if hasattr(pipe, "blocks") else output
    names = ("images", "videos", "frames", "video") if output_type != "latent" else ENDS
    found = next(values[name] for name in names if name in values)
    found = np.stack(found) if isinstance(found, list) else found
    return torch.as_tensor(found).float().numpy()


# The transformer of this family compiles itself; what torch 2.13's compiler writes for a processor
# without vector instructions does not compile.
COMPILED = "wan-animate-2"
needs_vectors = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch compiles with vectors only"
)
FAMILY_NAMES = [
    pytest.param(name, marks=needs_vectors) if name == COMPILED else name
    for name in (*FAMILIES, *MODULAR)
]


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_a_family_of_2026_is_recorded_and_not_changed(name: str, tmp_path: Path) -> None:
    family = (FAMILIES | MODULAR)[name]
    pipe = family.make()
    plain = call(pipe, family)
    with Recorder(pipe, tmp_path / "runs.zarr", dtype="float32"):
        recorded = call(pipe, family)
    np.testing.assert_array_equal(plain, recorded)
    ds = open_runs(tmp_path / "runs.zarr")
    assert ds["x0"].shape == (1, family.steps, *family.shape)
    assert ds["seed"].values.tolist() == [7]
    # Every scheduler here takes first-order steps along the predicted velocity: what enters a step
    # shows whether signs, levels and axes of the step before were read as they were meant.
    axes = (family.steps, *[1] * len(family.shape))
    alpha, sigma = (ds[level].values.reshape(axes) for level in ("alpha", "sigma"))
    x0, eps = (ds[field].values.astype("f8")[0] for field in ("x0", "eps"))
    entering = alpha * x0 + sigma * eps
    np.testing.assert_allclose(entering[0], ds["x_init"].values[0], atol=1e-4)
    reached = alpha[1:] * x0[:-1] + sigma[1:] * eps[:-1]
    if "mask_image" not in family.call:  # else blended in between
        np.testing.assert_allclose(entering[1:], reached, atol=1e-3)
    # The end is what the pipeline hands over, in whatever order it keeps its latents.
    end = ds["sample"].values
    if name == "wan-animate-2":  # hands over no latents
        np.testing.assert_allclose(end[0], x0[-1], atol=1e-3)
        return
    latents = call(pipe, family, "latent")
    if family.held:
        rows = latents.reshape(1, -1, *end.shape[3:], end.shape[2])  # of tokens
        video = rows.transpose(0, 1, 4, 2, 3) if latents.ndim == 3 else latents.swapaxes(1, 2)
        np.testing.assert_allclose(video[:, family.held :], end, atol=1e-3)
        return
    assert latents.size == end.size
    np.testing.assert_allclose(np.sort(latents, axis=None), np.sort(end, axis=None), atol=1e-3)
    again = to_image(pipe, torch.from_numpy(end)).astype(int)
    np.testing.assert_allclose(again, ds["image"].values.astype(int), atol=1)
    if not ds.attrs["call_missing"]:
        replayed = replay(
            tmp_path / "runs.zarr", tmp_path / "t.zarr", strategy="none", pipeline=pipe
        )
        assert float(open_runs(replayed.path)["difference"].max()) == 0


def test_a_change_of_experts_is_a_fact(tmp_path: Path) -> None:
    family = FAMILIES["wan-2.2"]
    with Recorder(family.make(), tmp_path / "runs.zarr") as recorder:
        call(recorder.pipe, family)
    facts = open_runs(tmp_path / "runs.zarr").attrs
    assert facts["networks_by_step"] == ["transformer", "transformer", "transformer_2"]


class FramesFirst(torch.nn.Module):
    """A decoder of video that answers with the frames before the colours, as Allegro's does."""

    config = diffusers.configuration_utils.FrozenDict(scaling_factor=1.0)
    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, 1, 1, 1, 1))

    def decode(self, latents: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        return (self.weight * latents.transpose(1, 2)[:, :, :3],)


def test_a_decoder_may_give_frames_before_colours() -> None:
    video = torch.zeros(2, 5, 4, 8, 8)
    video[:, 2] = 1.0
    image = to_image(SimpleNamespace(vae=FramesFirst()), video)
    assert image.shape == (2, 8, 8, 3)
    assert image.min() == 255


def test_a_frame_that_is_put_back_beside_the_scheduler_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pipe = wan("ImageToVideo", expand_timesteps=True)
    with (
        pytest.raises(InputError, match="expand_timesteps puts the given frame back"),
        Recorder(pipe, tmp_path / "runs.zarr"),
    ):
        pipe(image=picture(), prompt="a", num_frames=5, **SQUARE)


REFUSED = {
    "HeliosAutoBlocks": ({"scheduler": "HeliosScheduler"}, "changes the resolution"),
    "MiniMaxH3Blocks": (
        {"scheduler": "MiniMaxH3Scheduler", "audio_scheduler": "MiniMaxH3Scheduler"},
        "points the other way",
    ),
    "EchoBlocks": ({}, "no scheduler to listen to"),
}


@pytest.mark.parametrize("blocks", REFUSED)
def test_modular_pipelines_without_readable_steps_are_refused(blocks: str, tmp_path: Path) -> None:
    schedulers, reason = REFUSED[blocks]
    pipe = modular(
        blocks, **{name: getattr(diffusers, kind)() for name, kind in schedulers.items()}
    )
    with pytest.raises(InputError, match=reason), Recorder(pipe, tmp_path / "runs.zarr"):
        raise AssertionError("must not be entered")
    assert not (tmp_path / "runs.zarr").exists()


def test_rows_of_tokens_that_are_no_image_are_refused() -> None:
    pipe = modular("MiniMaxMusic3Blocks")  # a song: (run, channel, time)
    with pytest.raises(InputError, match="not one image or video"):
        layout_of(pipe, {}).rearrange(torch.zeros(1, 64, 32))
    pipe = FAMILIES["qwen"].make()  # four layers and their sum, as Qwen-Image-Layered has them
    with pytest.raises(InputError, match="16 tokens of 16 numbers are not one image"):
        layout_of(pipe, SQUARE).rearrange(torch.zeros(1, 16, 16))


@pytest.mark.parametrize("asked", [{}, SQUARE])
@pytest.mark.parametrize("kind", ["pil", "several", "torch", "numpy"])
def test_edits_are_as_wide_as_their_image(kind: str, asked: dict[str, int]) -> None:
    pixels = np.zeros((80, 208, 3), np.uint8)  # Qwen-Image edits take the size of their image
    image = {
        "pil": Image.fromarray(pixels),
        "several": [Image.fromarray(pixels[:, :16]), Image.fromarray(pixels)],
        "torch": torch.zeros(1, 3, 80, 208),
        "numpy": pixels,
    }[kind]
    pipe = FAMILIES["qwen"].make()
    found = layout_of(pipe, {"image": image, **asked}).rearrange(torch.zeros(1, 10 * 26, 16))
    assert found.shape == (1, 4, 20, 52)
    with pytest.raises(InputError, match="give height and width in the call"):  # 8 x 27, 9 x 24
        layout_of(pipe, {"image": image, **asked}).rearrange(torch.zeros(1, 9 * 24, 16))
    wide = layout_of(pipe, {"image": image, "height": 32, "width": 16})
    assert wide.rearrange(torch.zeros(1, 8, 16)).shape == (1, 4, 8, 4)  # as it was asked for


@needs_vectors
def test_segments_that_are_sampled_one_after_another_are_refused(tmp_path: Path) -> None:
    family = MODULAR[COMPILED]
    two = {**family.call, "num_segments": 2, "driving_video_pixels": torch.zeros(1, 3, 9, 16, 16)}
    with (
        pytest.raises(InputError, match="several passes"),
        Recorder(family.make(), tmp_path / "runs.zarr") as recorder,
    ):
        recorder.pipe(**two, num_inference_steps=STEPS, output_type="pt")
    assert not (tmp_path / "runs.zarr").exists()


class Halving(diffusers.DiffusionPipeline):
    """Samples pixels, and halves them after each step where nobody sees it."""

    def __init__(self, unet: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, generator: Any = None, num_inference_steps: int = STEPS) -> torch.Tensor:
        self.scheduler.set_timesteps(num_inference_steps)
        x = torch.randn(1, 1, 16, 16, generator=generator)
        for t in self.scheduler.timesteps:
            x = 0.5 * self.scheduler.step(self.unet(x, t).sample, t, x).prev_sample
        return x


def test_samples_that_are_changed_unseen_are_refused(tiny_pipeline: Any, tmp_path: Path) -> None:
    pipe = Halving(tiny_pipeline.unet, diffusers.DDIMScheduler(clip_sample=False))
    with (
        pytest.raises(InputError, match="changes its samples after the scheduler's steps"),
        Recorder(pipe, tmp_path / "runs.zarr"),
    ):
        pipe()
    assert not (tmp_path / "runs.zarr").exists()


CLASSIC: dict[str, tuple[Family, str, float | None, dict[str, Any]]] = {
    # the modular blocks, their guiders' scale, and what the classic call is told for the same
    "flux2": (FAMILIES["flux2"], "Flux2AutoBlocks", None, {}),
    "ernie": (FAMILIES["ernie"], "ErnieImageAutoBlocks", 5.0, {"guidance_scale": 5.0}),
    "qwen": (FAMILIES["qwen"], "QwenImageAutoBlocks", 5.0, {"true_cfg_scale": 5.0}),
    "z-image": (FAMILIES["z-image"], "ZImageAutoBlocks", 5.0, {"guidance_scale": 4.0}),
    "wan-2.2": (FAMILIES["wan-2.2"], "Wan22Blocks", 5.0, {"guidance_scale": 5.0}),
    "hunyuan-1.5": (MODULAR["hunyuan-1.5-classic"], "HunyuanVideo15AutoBlocks", 4.0, {}),
    "krea2": (MODULAR["krea2-classic"], "Krea2AutoBlocks", 4.0, {"guidance_scale": 3.0}),
    "cosmos-3": (MODULAR["cosmos-3-classic"], "Cosmos3OmniBlocks", None, {}),
    "ideogram4": (MODULAR["ideogram4-classic"], "Ideogram4AutoBlocks", None, {}),
    "ltx-2-modular": (MODULAR["ltx-2-classic"], "LTX2AutoBlocks", None, {}),
    "qwen-2.1": (
        MODULAR["qwen-2.1-classic"],
        "QwenImage21AutoBlocks",
        4.0,
        {"true_cfg_scale": 4.0},
    ),
    **{
        name: (
            Family(build, MODULAR[name].shape, MODULAR[name].call),
            blocks,
            scale,
            {"guidance_scale": scale},
        )
        for name, build, blocks, scale in (
            ("sd3", sd3, "StableDiffusion3AutoBlocks", 5.0),
            ("sdxl", sdxl, "StableDiffusionXLAutoBlocks", 5.0),
            ("ltx", ltx, "LTXAutoBlocks", 3.0),
            ("wan", wan, "WanBlocks", 5.0),
        )
    },
}


@pytest.mark.parametrize("name", CLASSIC)
def test_a_modular_pipeline_has_the_facts_of_its_classic_version(name: str, tmp_path: Path) -> None:
    family, blocks, scale, told = CLASSIC[name]
    classic = family.make()
    own = MODULAR.get(name, family).call
    found = []
    for kind, pipe, given in (
        ("classic", classic, {**family.call, **told}),
        ("modular", modular_version(classic, blocks, scale), own),
    ):
        with Recorder(pipe, tmp_path / kind, dtype="float32"):
            pipe(
                **given,
                generator=torch.Generator().manual_seed(7),
                num_inference_steps=STEPS,
                output_type="pt",
            )
        found.append(open_runs(tmp_path / kind))
    one, other = found
    assert one["seed"].values.tolist() == other["seed"].values.tolist() == [7]
    for variable in ("timestep", "sigma", "x_init", "eps", "x0", "sample"):
        np.testing.assert_allclose(one[variable].values, other[variable].values, atol=2e-3)
    np.testing.assert_allclose(one["image"].values, other["image"].values, atol=1)
    for fact in ("model_fingerprint", "scheduler_class", "compute", "networks_by_step"):
        assert one.attrs.get(fact) == other.attrs.get(fact)
    if scale is not None:
        assert other["guidance_scale"].values.tolist() == [scale]
        assert other.attrs["guider"]["guidance_scale"] == scale
    assert ("guider_2" in other.attrs) == (name == "wan-2.2")


RECORDED = {
    # package of diffusers: its family among those above
    "anima": "anima",
    "cosmos": "cosmos-3",
    "ernie_image": "ernie",
    "flux": "flux-image",
    "flux2": "flux2-image",
    "flux3": "flux3",
    "hunyuan_video1_5": "hunyuan-1.5",
    "ideogram4": "ideogram4",
    "krea2": "krea2",
    "ltx": "ltx",
    "ltx2": "ltx-2-modular",
    "qwenimage": "qwen-image",
    "qwenimage21": "qwen-2.1",
    "stable_diffusion_3": "sd3",
    "stable_diffusion_xl": "sdxl",
    "wan": "wan",
    "wan_animate_2": "wan-animate-2",
    "z_image": "z-image-image",
}
NOT_RECORDED = {"echo", "helios", "minimax_h3", "minimax_music3"}  # refused by tests above


def test_every_modular_package_of_diffusers_is_recorded_or_refused() -> None:
    packages = pkgutil.iter_modules(diffusers.modular_pipelines.__path__)
    assert {each.name for each in packages if each.ispkg} == {*RECORDED, *NOT_RECORDED}
    assert set(RECORDED.values()) <= {*MODULAR, *CLASSIC}
