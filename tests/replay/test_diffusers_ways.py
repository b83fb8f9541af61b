"""The corrector as a step callback and as a block of Modular Diffusers: as inside a ``with``."""

from __future__ import annotations

import copy
import gc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pipelines
import torch

from asced_analysis.calibration import calibrate
from asced_analysis.correction import Corrector
from asced_recorders import AscedCorrect, Recorder, record
from asced_recorders.pipelines.scheduler_names import make_scheduler
from asced_stores import open_runs
from asced_stores.errors import InputError

STEPS = 6


def build(name: str, scheduler: str | None = None) -> Any:
    torch.manual_seed(0)
    pipe = getattr(tiny_pipelines, name)()
    pipe.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipe.scheduler = make_scheduler(scheduler, pipe.scheduler)
    return pipe


def embeds(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 4, 8, generator=torch.Generator().manual_seed(seed))


CALLS: dict[str, dict[str, Any]] = {
    "stable_diffusion": {"prompt": ["a b", "c d"]},
    "sdxl": {"prompt": ["a b", "c d"]},
    "flux": {"prompt_embeds": embeds(2), "pooled_prompt_embeds": embeds(2)[:, 0]}
    | {"height": 8, "width": 16},
}


def sample(pipe: Any, name: str, **options: Any) -> Any:
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    given = {"num_inference_steps": STEPS, "output_type": "latent", **CALLS[name], **options}
    return pipe(generator=generators, **given)


def ends(found: Any) -> torch.Tensor:
    """Latents of a classic call."""
    end: torch.Tensor = found.images
    return end


def editor(shape: tuple[int, ...], corrector: Corrector | None = None) -> Corrector:
    """A corrector of the first of two runs, whose mask is given."""
    corrector = corrector or Corrector(None, step=3, grow=0)
    masks = np.zeros((2, *shape), bool)
    masks[0, :2, :2] = True
    corrector.assign([0, 1], masks=masks)
    return corrector


PLACES = {"stable_diffusion": (8, 8), "sdxl": (8, 8), "flux": (4, 8)}


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("stable_diffusion", "ddim"),
        ("stable_diffusion", "dpm++"),
        ("sdxl", "euler"),
        ("flux", None),
    ],
)
def test_a_callback_corrects_as_attach_does(name: str, scheduler: str | None) -> None:
    pipe = build(name, scheduler)
    plain, kinds = ends(sample(pipe, name)), (type(pipe), type(pipe.scheduler))
    shape = tuple(plain.shape[-2:]) if name != "flux" else PLACES[name]
    with editor(shape).attach(pipe):
        expected = ends(sample(pipe, name))
    assert (expected[0] != plain[0]).any()
    assert (expected[1] == plain[1]).all()
    corrector = editor(shape)
    found = ends(sample(pipe, name, callback_on_step_end=corrector.callback(pipe)))
    assert (found == expected).all()
    assert [one.flagged for one in corrector.report] == [True, False]
    assert (type(pipe), type(pipe.scheduler)) == kinds


def test_only_the_calls_that_carry_it_are_corrected(tmp_path: Path) -> None:
    from diffusers.callbacks import MultiPipelineCallbacks

    name = "stable_diffusion"
    pipe = build(name, "ddim")
    plain, kinds = ends(sample(pipe, name)), (type(pipe), type(pipe.scheduler))
    corrector = editor(tuple(plain.shape[-2:]))
    callback = corrector.callback(pipe)
    assert (ends(sample(pipe, name)) == plain).all()
    assert type(pipe.scheduler) is kinds[1]

    def stops(*_: Any) -> Any:
        raise RuntimeError("stop")

    several = MultiPipelineCallbacks([callback])
    corrected = ends(sample(pipe, name, callback_on_step_end=several))
    assert (corrected[0] != plain[0]).any()
    editor(tuple(plain.shape[-2:]), corrector)
    with pytest.raises(RuntimeError, match="stop"):
        sample(pipe, name, callback_on_step_end=MultiPipelineCallbacks([callback, Stops(stops)]))
    assert (ends(sample(pipe, name)) == plain).all()
    hidden = Stops(callback.__call__)
    with pytest.raises(InputError, match="hand it over itself"):
        sample(pipe, name, callback_on_step_end=hidden)
    # A recorder, before and after the callback is made, records what was corrected.
    for order, path in enumerate((tmp_path / "a.zarr", tmp_path / "b.zarr")):
        own = editor(tuple(plain.shape[-2:]))
        made = own.callback(pipe) if order else None
        with Recorder(pipe, path):
            again = sample(pipe, name, callback_on_step_end=made or own.callback(pipe))
        np.testing.assert_array_equal(open_runs(path)["sample"].values, corrected.numpy())
        assert (ends(again) == corrected).all()
        del made, own
    del callback, several, hidden
    gc.collect()  # what errors and recorders hold
    assert (type(pipe), type(pipe.scheduler)) == kinds


class Stops:
    """A callback that fails."""

    tensor_inputs = ("latents",)

    def __init__(self, action: Any) -> None:
        self.action = action

    def __call__(self, *told: Any) -> Any:
        return self.action(*told)


def test_a_callback_detects(tmp_path: Path) -> None:
    """Thresholds with levels by prompt: the callback knows the call's arguments."""
    name = "stable_diffusion"
    pipe = build(name, "ddim")
    path = tmp_path / "runs.zarr"
    record(pipe, path, runs=48, steps=STEPS, batch_size=12, prompts=["a b", "c d"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        thresholds = calibrate(path, "calibrated", false_alarm_rate=0.5, groups="prompt")
    reports = []
    for corrector in (Corrector(thresholds), Corrector(thresholds)):
        if not reports:
            with corrector.attach(pipe):
                expected = ends(sample(pipe, name))
        else:
            found = ends(sample(pipe, name, callback_on_step_end=corrector.callback(pipe)))
        reports.append([(one.flagged, one.score) for one in corrector.report])
    assert reports[0] == reports[1]
    assert (found == expected).all()


def test_a_pipeline_without_callbacks_is_refused(tiny_pipeline: Any) -> None:
    with pytest.raises(InputError, match="takes no callback_on_step_end"):
        Corrector(None, step=2).callback(tiny_pipeline)


def modular(name: str, classic: Any, corrector: Corrector | None) -> Any:
    """The modular version of a pipeline, whose prompts are embedded."""
    from diffusers.modular_pipelines import FluxAutoBlocks, StableDiffusionXLAutoBlocks

    blocks = FluxAutoBlocks() if name == "flux" else StableDiffusionXLAutoBlocks()
    for each in ("text_encoder", "ip_adapter"):
        blocks.sub_blocks.pop(each, None)
    if corrector is not None:  # SDXL has loops for inpainting and ControlNet beside its own
        assert AscedCorrect.insert(corrector, blocks) == (1 if name == "flux" else 4)
    pipe = blocks.init_pipeline()
    parts = {n: c for n, c in classic.components.items() if n in pipe.component_names and c}
    pipe.update_components(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


WIDE = [torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
CALLS["modular sdxl"] = {
    "prompt_embeds": WIDE[0],
    "negative_prompt_embeds": WIDE[1],
    "pooled_prompt_embeds": WIDE[0][:, 0, :8],
    "negative_pooled_prompt_embeds": WIDE[1][:, 0, :8],
    "height": 16,
    "width": 16,
}


@pytest.mark.parametrize("name", ["flux", "sdxl"])
def test_a_block_corrects_as_attach_does(name: str) -> None:
    call = name if name == "flux" else "modular sdxl"
    classic = build(name)
    plain = modular(name, classic, None)
    untouched = sample(plain, call, output="latents")
    with editor(PLACES[name]).attach(plain):
        expected = sample(plain, call, output="latents")
    assert (expected[0] != untouched[0]).any()
    corrector = editor(PLACES[name])
    pipe = modular(name, classic, corrector)
    kind = type(pipe.scheduler)
    assert (sample(pipe, call, output="latents") == expected).all()
    assert [one.flagged for one in corrector.report] == [True, False]
    assert type(pipe.scheduler) is kind
    # What the graph takes and needs is what it took and needed.
    for part in ("inputs", "required_inputs", "intermediate_outputs", "expected_components"):
        assert str(getattr(pipe.blocks, part)) == str(getattr(plain.blocks, part))
    # It is still there where diffusers picks the blocks that a call will run.
    chosen = pipe.blocks.get_execution_blocks(prompt_embeds=True)
    blocks = [block for block in chosen.sub_blocks.values() if isinstance(block, AscedCorrect)]
    assert len(blocks) == 1
    assert "artifacts" in blocks[0].description
    assert copy.deepcopy(blocks[0]).corrector is corrector


def test_a_block_stands_where_there_are_steps() -> None:
    from diffusers.modular_pipelines import FluxAutoBlocks, StableDiffusionXLAutoBlocks

    corrector = Corrector(None, step=2)
    assert AscedCorrect.insert(corrector, StableDiffusionXLAutoBlocks()) == 4
    for _ in range(2):  # diffusers shares blocks between graphs: another one is left as it was
        assert AscedCorrect.insert(corrector, FluxAutoBlocks()) == 1
    decode = FluxAutoBlocks().sub_blocks["decode"]
    with pytest.raises(InputError, match="uses no scheduler"):
        AscedCorrect(corrector, decode)
    with pytest.raises(InputError, match="no denoising loop"):
        AscedCorrect.insert(corrector, decode)
