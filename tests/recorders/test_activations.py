"""Pooled activations of chosen modules, by step, against hooks of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_pipelines
import torch
from PIL import Image

from asced_recorders import Recorder, record
from asced_recorders.pipelines import activations
from asced_recorders.pipelines.activations import MOST_CHANNELS, modules_of, pooled
from asced_recorders.tap.tap import Tap, TapListener
from asced_stores import open_runs
from asced_stores.errors import InputError


def embeds(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(seed))


SMALL: Any = {"height": 16, "width": 16}
TEXT: Any = {"prompt": ["a", "b"]}
VECTORS: Any = {"prompt_embeds": embeds(0)}
FAMILIES: dict[str, tuple[str, Any]] = {
    # a module, and how the pipeline is called
    "sd": ("mid_block", TEXT),  # a doubled batch for guidance
    "flux": ("transformer_blocks.0", VECTORS | SMALL | {"pooled_prompt_embeds": embeds(1)[:, 0]}),
    "wan": ("blocks.0", VECTORS | SMALL | {"negative_prompt_embeds": embeds(1), "num_frames": 5}),
    "animatediff": ("down_blocks.0", TEXT | SMALL | {"num_frames": 3}),  # frames among the rows
    "dit": ("transformer_blocks.0", {"class_labels": [1, 2], "guidance_scale": 1.0}),
}


def moments(values: torch.Tensor, runs: int) -> np.ndarray:
    """Mean and deviation of each channel by run, row by row."""
    channel = 2 if values.ndim == 3 else 1
    rows = [
        torch.cat(
            [
                row.movedim(channel - 1, 0).flatten(1).mean(1),
                row.movedim(channel - 1, 0).flatten(1).std(1, correction=0),
            ]
        )
        for row in values.double()
    ]
    per = len(rows) // runs
    return torch.stack(rows).reshape(runs, per, -1).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_what_the_modules_gave(family: str, tmp_path: Path) -> None:
    name, given = FAMILIES[family]
    pipe = tiny_pipelines.BUILDERS[family]()
    network = getattr(pipe, "transformer", None) or pipe.unet
    seen: list[torch.Tensor] = []
    module = network.get_submodule(name)

    def see(_: Any, __: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        seen.append(first.detach().clone())

    with Recorder(pipe, tmp_path / "runs.zarr", activations=[name]):
        handle = module.register_forward_hook(see)
        pipe(**given, num_inference_steps=3, output_type="np")
        handle.remove()
    ds = open_runs(tmp_path / "runs.zarr")
    found = ds["activations"].values
    assert found.shape[:2] == (2, 3)
    assert set(ds["module"].values) == {name}
    assert ds.attrs["activations"] == [{"module": name, "values": found.shape[2]}]
    calls = len(seen) // 3
    for step in range(3):
        each = []
        for values in seen[step * calls : (step + 1) * calls]:
            if family in ("sd", "animatediff"):  # negative prompts come first
                each += [moments(part, 2) for part in values.chunk(2)]
            else:
                each.append(moments(values, 2))
        wanted = np.mean([one.mean(axis=1) for one in each], axis=0)
        assert np.allclose(found[:, step], wanted, atol=1e-4 * np.abs(wanted).max())


def test_of_many_channels_as_many_groups(tmp_path: Path) -> None:
    assert pooled(torch.ones(3, 5 * MOST_CHANNELS, 2, 2)).shape == (3, 2 * MOST_CHANNELS)
    assert pooled(torch.ones(3, 7)).shape == (3, 7)
    record(
        "fashion", tmp_path / "runs.zarr", runs=2, steps=2, batch_size=2, activations=["mid_block"]
    )
    ds = open_runs(tmp_path / "runs.zarr")
    assert ds["activations"].shape == (2, 2, 192)
    ds.to_netcdf(tmp_path / "runs.nc")
    assert open_runs(tmp_path / "runs.nc")["module"].values[0] == "mid_block"


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    path, given = tmp_path / "runs.zarr", {"runs": 4, "steps": 2, "batch_size": 2}
    with pytest.raises(InputError, match=r"has a module 'midblock': name .* mid_block"):
        record("fashion", path, activations=["midblock"], **given)
    assert not path.exists()
    pipe = tiny_pipelines.stable_diffusion()
    pipe.unet.idle = torch.nn.Linear(1, 1)
    with (
        pytest.raises(InputError, match="idle did not run before the first step"),
        Recorder(pipe, path, activations=["idle"]),
    ):
        pipe("a", num_inference_steps=2)
    record("fashion", path, activations=["mid_block"], **given)
    with pytest.raises(InputError, match=r"activations of \['mid_block'\], now \['conv_in'\]"):
        record("fashion", path, activations=["conv_in"], resume=True, **given)
    record("fashion", path, activations=["mid_block"], resume=True, **given)


def test_a_name_is_that_of_one_module(tmp_path: Path) -> None:
    class Inner(torch.nn.Module):  # EDM and k-diffusion call what they wrap so
        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))

    network = Inner()
    for name in ("model.0", "model.model.0"):
        assert modules_of(network, name) == [("model", network.model[0])]
    pipe = tiny_pipelines.stable_diffusion()
    net = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4, 8))
    pipe = diffusers.StableDiffusionControlNetPipeline(
        **pipe.components, controlnet=net, requires_safety_checker=False
    )
    given: Any = {"prompt": "a", "image": Image.new("RGB", (16, 16)), "num_inference_steps": 2}
    path = tmp_path / "runs.zarr"
    with (
        pytest.raises(InputError, match=r"controlnet and unet each .* example unet\.mid_block"),
        Recorder(pipe, path, activations=["mid_block"]),
    ):
        pipe(**given)
    with Recorder(pipe, path, activations=["unet.mid_block", "unet.mid_block"]):
        pipe(**given)
    assert np.isfinite(open_runs(path)["activations"].values).all()


def test_of_loops_of_other_libraries(tmp_path: Path) -> None:
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 1, 1)

        def forward(self, x: torch.Tensor, t: float) -> torch.Tensor:
            return self.outer(self.inner(x).relu())

    network, x = Network(), torch.randn(3, 1, 8, 8)
    wanted = []
    given: Any = {"levels": lambda x, t: ((1 - t) ** 0.5, t**0.5), "prediction_type": "sample"}
    with torch.no_grad(), Recorder.watch(network, tmp_path / "w", activations=["inner"], **given):
        for t in (0.9, 0.5, 0.2):
            wanted.append(moments(network.inner(x), 3)[:, 0])
            x = network(x, t)
    watched = open_runs(tmp_path / "w")
    assert np.allclose(watched["activations"].values, np.stack(wanted, 1), atol=1e-5)
    assert watched.attrs["activations"][0]["module"] == "inner"

    step: Any = {"sample": x, "model_output": x, "prediction_type": "sample"}
    with Recorder.custom(tmp_path / "c", (1, 8, 8), 2) as recorder:
        recorder.step(alpha=0.5, sigma=0.9, activations=np.ones((3, 2)), **step)
        with pytest.raises(InputError, match="comes without activations"):
            recorder.step(alpha=0.9, sigma=0.4, **step)
        recorder.step(alpha=0.5, sigma=0.9, activations=np.ones((3, 2)), **step)
        with pytest.raises(InputError, match=r"have shape \(3, 5\): expected \(3, 2\)"):
            recorder.step(alpha=0.9, sigma=0.4, activations=np.ones((3, 5)), **step)
        recorder.step(alpha=0.5, sigma=0.9, activations=np.ones((3, 2)), **step)
        recorder.step(alpha=0.9, sigma=0.4, activations=torch.zeros(3, 2), **step)
    own = open_runs(tmp_path / "c")
    assert own["activations"].values.tolist() == [[[1, 1], [0, 0]]] * 3
    assert own.attrs["activations"] == [{"module": "the loop's own", "values": 2}]

    with Recorder.custom(tmp_path / "d", (1, 8, 8), 2) as recorder:
        recorder.step(alpha=0.5, sigma=0.9, activations=np.ones((3, 2)), **step)
        recorder.discard()  # what was not recorded holds nobody
        recorder.step(alpha=0.5, sigma=0.9, **step)
        recorder.step(alpha=0.9, sigma=0.4, **step)
        with pytest.raises(InputError, match="comes with activations"):
            recorder.step(alpha=0.5, sigma=0.9, activations=np.ones((3, 2)), **step)
    assert "activations" not in open_runs(tmp_path / "d")


def test_of_a_step_its_first_evaluation_alone_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not Heun's second one, nor what a listener asks of the network beside the pipeline."""
    monkeypatch.setattr(activations, "MOST_VALUES", 64)  # pooled in parts
    pipe = tiny_pipelines.stable_diffusion()
    pipe.scheduler = diffusers.HeunDiscreteScheduler(beta_schedule="scaled_linear")
    seen: list[torch.Tensor] = []

    class Lookahead(TapListener):
        def ask(self, *_: Any) -> None:
            with torch.no_grad():
                pipe.unet(torch.ones(1, 4, 8, 8), 5, torch.ones(1, 16, 8))

        before_step = after_step = ask

    def see(_: Any, __: Any, output: torch.Tensor) -> None:
        seen.append(output.detach().clone())

    path = tmp_path / "runs.zarr"
    with Tap(pipe, Lookahead()), Recorder(pipe, path, activations=["mid_block"]):
        handle = pipe.unet.mid_block.register_forward_hook(see)
        pipe("a", num_inference_steps=3)
        handle.remove()
    own = [values for values in seen if len(values) == 2]  # the pipeline's are doubled for guidance
    assert len(own) == 5
    assert len(seen) == 5 + 2 * 3
    found = open_runs(path)["activations"].values[0]
    for step in range(3):
        wanted = moments(own[2 * step], 1).mean((0, 1))
        assert np.allclose(found[step], wanted, atol=1e-4 * np.abs(wanted).max())
