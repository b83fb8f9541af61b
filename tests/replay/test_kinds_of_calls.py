"""Every kind of call that docs/recording.md lists comes back from the command line, as it says."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_pipelines as tiny
import torch
from modular_families import modular_with_text
from newer_families import FAMILIES
from PIL import Image

from asced_analysis.replay.recorded_network import recorded_network
from asced_cli.call_arguments import call_arguments
from asced_cli.main import run
from asced_recorders import Recorder, load_pipeline, record
from asced_recorders.pipelines.sampling import run_generators
from asced_stores import open_runs

ROOT = Path(__file__).parents[2]
SIZE = {"height": 16, "width": 16}
STEPS = 3


models: Any = diffusers


def embeds(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 4, 8, generator=torch.Generator().manual_seed(seed))


def picture() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(values)


def painted() -> Image.Image:
    values = np.zeros((16, 16), np.uint8)
    values[4:12, 4:12] = 255
    return Image.fromarray(values)


def euler() -> Any:
    pipe = tiny.stable_diffusion()
    pipe.scheduler = models.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    return pipe


def control_net() -> Any:
    pipe = tiny.stable_diffusion()
    config = models.ControlNetModel.from_unet(pipe.unet).config
    own = {name: value for name, value in config.items() if not name.startswith("_")}
    net = models.ControlNetModel(**{**own, "conditioning_embedding_out_channels": (4, 4)})
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return models.StableDiffusionControlNetPipeline(
        **pipe.components, controlnet=net.eval(), requires_safety_checker=False
    )


def pixels(kind: str) -> Any:
    unet = models.UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    ).eval()
    scheduler = getattr(models, f"{kind}Scheduler")(prediction_type="v_prediction")
    return getattr(models, f"{kind}Pipeline")(unet, scheduler)


PAIR = {"prompt_embeds": embeds(2), "negative_prompt_embeds": embeds(2, 1)}
TWO = {"prompt": ["a cat", "a dog"]}
KINDS: dict[str, tuple[str, Callable[[], Any], dict[str, Any], tuple[str, ...]]] = {
    # row of the table, what to build, arguments of the call, arguments that are given by file
    "ddpm": ("DDPM", lambda: pixels("DDPM"), {"batch_size": 2}, ()),
    "ddim, eta": (
        "DDPM",
        lambda: pixels("DDIM"),
        {"batch_size": 2, "eta": 0.7, "use_clipped_model_output": True},
        (),
    ),
    "negative prompts, eta": (
        "Stable Diffusion",
        tiny.stable_diffusion,
        {**TWO, "negative_prompt": ["ugly", ""], "guidance_scale": 5.0, "eta": 0.3},
        (),
    ),
    "two images of a prompt": (
        "Stable Diffusion",
        tiny.stable_diffusion,
        {"prompt": "a cat", "num_images_per_prompt": 2, "guidance_rescale": 0.5},
        (),
    ),
    "timesteps": (
        "Stable Diffusion",
        euler,
        {**TWO, "timesteps": [900, 500, 20], "num_inference_steps": None},
        (),
    ),
    "sdxl": (
        "Stable Diffusion",
        tiny.sdxl,
        {**TWO, **SIZE, "prompt_2": ["x", "y"], "crops_coords_top_left": (3, 4)},
        (),
    ),
    "image-to-image": (
        "image-to-image",
        lambda: tiny.stable_diffusion("Img2Img"),
        {**TWO, "image": picture(), "strength": 0.7},
        ("image",),
    ),
    "inpainting": (
        "inpainting",
        lambda: tiny.stable_diffusion("Inpaint"),
        {**TWO, **SIZE, "image": picture(), "mask_image": painted()},
        ("image", "mask_image"),
    ),
    "inpainting, an image a run": (
        "inpainting",
        lambda: tiny.stable_diffusion("Inpaint", 9),
        {**TWO, **SIZE, "image": [picture()] * 2, "mask_image": painted()},
        ("image", "mask_image"),
    ),
    "ControlNet": ("ControlNet", control_net, {**TWO, **SIZE, "image": picture()}, ("image",)),
    "sd3": (
        "SD3",
        tiny.sd3,
        {
            **PAIR,
            **SIZE,
            "pooled_prompt_embeds": embeds(2)[:, 0],
            "negative_pooled_prompt_embeds": embeds(2, 1)[:, 0],
        },
        (),
    ),
    "flux": (
        "Flux",
        tiny.flux,
        {
            "prompt_embeds": torch.cat([embeds(2, seed) for seed in range(20)], 1),
            "pooled_prompt_embeds": embeds(2)[:, 0],
            "height": 8,
            "width": 16,
        },
        ("prompt_embeds",),  # more numbers than a store keeps
    ),
    "pixart": (
        "PixArt",
        tiny.pixart,
        {
            **PAIR,
            **SIZE,
            "prompt": None,
            "negative_prompt": None,
            "prompt_attention_mask": torch.ones(2, 4),
            "negative_prompt_attention_mask": torch.ones(2, 4),
            "use_resolution_binning": False,
        },
        (),
    ),
    "dit": ("DiT", tiny.dit, {"class_labels": [3, 5], "guidance_scale": 3.0}, ()),
    "animatediff": ("AnimateDiff", tiny.animatediff, {**TWO, **SIZE, "num_frames": 3}, ()),
    "cogvideo": (
        "AnimateDiff",
        tiny.cogvideo,
        {**PAIR, **SIZE, "num_frames": 8, "max_sequence_length": 4},
        (),
    ),
    "wan": ("Wan", tiny.wan, {**PAIR, **SIZE, "num_frames": 5}, ()),
    "modular, inpainting": (
        "modular",
        modular_with_text,
        {**TWO, **SIZE, "image": picture(), "mask_image": painted(), "strength": 0.7},
        ("image", "mask_image"),
    ),
}


def save(value: Any, place: Path) -> None:
    """Write an argument as the command line reads it."""
    if isinstance(value, list):
        place.mkdir()
        for number, each in enumerate(value):
            each.save(place / f"{number}.png")
    elif isinstance(value, torch.Tensor):
        np.save(place.with_suffix(".npy"), value.numpy())
    else:
        value.save(place.with_suffix(".png"))


def record_call(kind: str, folder: Path) -> list[str]:
    """Record one call, save its pipeline, and say how it is replayed."""
    _, build, arguments, by_file = KINDS[kind]
    torch.manual_seed(0)
    built = build()
    built.save_pretrained(str(folder / "pipe"))
    pipe = load_pipeline(folder / "pipe")  # weights elsewhere in memory may add in another order
    if hasattr(built, "guider"):
        pipe.guider = built.guider
    call = {"num_inference_steps": STEPS, **arguments}
    with Recorder(pipe, folder / "runs.zarr"):
        pipe(
            **{name: value for name, value in call.items() if name != "num_inference_steps"}
            | ({"num_inference_steps": STEPS} if call["num_inference_steps"] else {}),
            generator=run_generators([5, 6]),
            output_type="np",
        )
    command = ["replay", str(folder / "runs.zarr"), "--strategy", "none"]
    command += ["--pipeline", str(folder / "pipe")]
    for name in by_file:
        save(arguments[name], folder / name)
        (place,) = (path for path in folder.iterdir() if path.stem == name)
        command += ["--call-option", f"{name}=@{place}"]
    return command


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_comes_back_from_the_command_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = record_call(kind, tmp_path)
    assert run([*command, "--out", str(tmp_path / "again.zarr")]) == 0
    assert "2 of 2 uncorrected runs came back bit for bit" in capsys.readouterr().out
    recorded, again = (open_runs(tmp_path / f"{name}.zarr") for name in ("runs", "again"))
    assert recorded["image"].shape == again["image"].shape
    by_file = KINDS[kind][3]
    assert sorted(by_file) == recorded.attrs["call_missing"]
    if by_file:
        out = str(tmp_path / "without.zarr")
        assert run([*command[: command.index("--call-option")], "--out", out]) == 2
        said = capsys.readouterr().err
        assert f"the store does not hold {', '.join(sorted(by_file))} of its calls" in said
        assert "--call-option NAME=VALUE" in said
        assert not Path(out).exists()


ROWS = {  # of the table
    "flux-control": "FluxControl",
    "flux-fill": "FluxFill",
    "flux-kontext": "Kontext",
    "flux2": "Flux.2, Qwen",
    "qwen": "Qwen-Image",
    "z-image": "Z-Image, Sana",
    "sana": "Sana",
    "wan-2.2": "Wan 2.2 with",
    "hunyuan": "HunyuanVideo",
    "ltx-condition": "LTX with conditions",
    "ltx-2": "LTX-2",
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_2026_comes_back_from_the_command_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = FAMILIES[name]
    family.make().save_pretrained(str(tmp_path / "pipe"))
    pipe = load_pipeline(tmp_path / "pipe")  # weights elsewhere in memory may add in another order
    runs = str(tmp_path / "runs.zarr")
    with Recorder(pipe, runs):
        pipe(
            **family.call,
            generator=run_generators([5]),
            num_inference_steps=STEPS,
            output_type="pt",
        )
    command = ["replay", runs, "--strategy", "none", "--pipeline", str(tmp_path / "pipe")]
    for option in open_runs(runs).attrs["call_missing"]:
        np.save(tmp_path / f"{option}.npy", family.call[option].numpy())
        command += ["--call-option", f"{option}=@{tmp_path / option}.npy"]
    assert run([*command, "--out", str(tmp_path / "again.zarr")]) == 0
    assert "1 of 1 uncorrected runs came back bit for bit" in capsys.readouterr().out


def test_another_image_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = record_call("ControlNet", tmp_path)
    painted().save(tmp_path / "image.png")
    assert run([*command, "--out", str(tmp_path / "again.zarr")]) == 2
    assert "what was given of image is not what the recorded call" in capsys.readouterr().err


def test_images_of_runs_are_recorded_and_replayed_by_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.stable_diffusion("Img2Img").save_pretrained(tmp_path / "pipe")
    (tmp_path / "images").mkdir()
    for number in range(3):
        picture().rotate(90 * number).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    given = ["--pipeline", str(tmp_path / "pipe"), "--batch-size", "2"]
    image = ["--call-option", f"image=@{tmp_path / 'images'}"]
    command = ["record", *given, *image, "--prompts", str(tmp_path / "prompts.txt")]
    runs = str(tmp_path / "runs.zarr")
    assert run([*command, "--runs", "3", "--steps", "4", "--out", runs]) == 0
    again = ["replay", runs, "--strategy", "none", *given[:2], *image]
    assert run([*again, "--out", str(tmp_path / "again.zarr")]) == 0
    assert "3 of 3 uncorrected runs came back bit for bit" in capsys.readouterr().out
    at = open_runs(runs).isel(step=1)
    x0, eps = (at[name].values.astype(np.float32) for name in ("x0", "eps"))
    options = call_arguments({"image": f"@{tmp_path / 'images'}"})
    ask = recorded_network(runs, tmp_path / "pipe", 1, options)  # as the default teacher does
    said = ask(float(at["alpha"]) * x0 + float(at["sigma"]) * eps, at["run"].values)
    np.testing.assert_allclose(said, x0, atol=0.05)
    empty = tmp_path / "empty"
    empty.mkdir()
    again[again.index(image[1])] = f"image=@{empty}"
    assert run([*again, "--out", str(tmp_path / "no.zarr")]) == 2
    assert "has no <run>.png" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_comes_back(
    precision: str, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(
        str(tiny_folder), tmp_path / "r.zarr", runs=3, steps=3, batch_size=2, precision=precision
    )
    command = ["replay", str(tmp_path / "r.zarr"), "--strategy", "none"]
    command += ["--pipeline", str(tiny_folder), "--out", str(tmp_path / "n.zarr")]
    assert run(command) == 0
    assert "3 of 3 uncorrected runs came back bit for bit" in capsys.readouterr().out


MINE = """
import diffusers, torch
from peft import LoraConfig

class Own(diffusers.DDIMScheduler):
    def step(self, model_output, timestep, sample, *args, **kwargs):
        return super().step(0.9 * model_output, timestep, sample, *args, **kwargs)

def make(scale=0.3):
    pipe = diffusers.StableDiffusionPipeline.from_pretrained("pipe", safety_checker=None)
    pipe.scheduler = Own.from_config(pipe.scheduler.config)
    torch.manual_seed(0)
    lora = LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_k"])
    pipe.unet.add_adapter(lora, adapter_name="style")
    pipe.set_adapters(["style"], [scale])
    return pipe

def louder():
    return make(1.0)
"""


def test_a_pipeline_that_a_function_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an adapter, and a scheduler class of its own: no folder could say that."""
    monkeypatch.chdir(tmp_path)
    tiny.stable_diffusion().save_pretrained("pipe")
    Path("my_pipelines.py").write_text(MINE)
    Path("prompts.txt").write_text("a cat\na dog\n")
    command = ["record", "--pipeline", "my_pipelines:make", "--prompts", "prompts.txt"]
    assert run([*command, "--steps", "3", "--out", "runs.zarr"]) == 0
    del sys.modules["my_pipelines"]
    facts = open_runs("runs.zarr").attrs
    assert (facts["scheduler_class"], facts["adapters"]) == ("Own", {"unet": {"style": 0.3}})
    again = ["replay", "runs.zarr", "--strategy", "none", "--out", "again.zarr"]
    assert run([*again, "--pipeline", "my_pipelines:make"]) == 0
    assert "2 of 2 uncorrected runs came back bit for bit" in capsys.readouterr().out
    for given, said in (
        (["my_pipelines:louder"], "call pipe.set_adapters(['style'], [0.3])"),
        (["pipe"], "load style (pipe.load_lora_weights, then pipe.set_adapters)"),
        ([], "from what my_pipelines:make made: give that again"),
    ):
        options = ["--pipeline", *given] if given else []
        assert run([*again, "--overwrite", *options]) == 2
        assert said in capsys.readouterr().err
    del sys.modules["my_pipelines"]


def rows() -> list[list[str]]:
    """Rows of the table of pipelines in docs/recording.md."""
    text = (ROOT / "docs" / "recording.md").read_text()
    table = text.split("| pipeline | three lines |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table]


def test_the_table_says_what_comes_back() -> None:
    for name, _, _, said in rows():
        kinds = [kind for kind, (row, *_) in KINDS.items() if row in name]
        families = [FAMILIES[family] for family, row in ROWS.items() if row in name]
        assert kinds or families, name
        given = {option for kind in kinds for option in KINDS[kind][3]}
        given |= {option for family in families for option in family.call}
        named = set(re.findall(r"`(\w+)=@", said))
        assert named <= given, name
        assert named or said == "yes", name
