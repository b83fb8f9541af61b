"""A fingerprint follows the content of weights and all else that decides what a model returns."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from asced_recorders import Recorder, record
from asced_recorders.pipelines import weight_hash
from asced_recorders.pipelines.fingerprint import ModelWatch, model_fingerprint
from asced_recorders.pipelines.model_facts import compute_facts, offload_facts
from asced_stores import open_runs
from asced_stores.errors import InputError

Build = Callable[..., Any]


def lora(pipe: Any) -> Any:
    from peft import LoraConfig

    for name in ("style", "other"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), name)
    for key, value in pipe.unet.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(value, std=0.1)
    pipe.unet.set_adapters(["style"], [1.0])
    return pipe


def average(pipe: Any) -> None:
    """What `EMAModel.copy_to` does."""
    from diffusers.training_utils import EMAModel

    average = EMAModel(pipe.unet.parameters())
    for shadow in average.shadow_params:
        shadow.mul_(0.9)
    average.copy_to(pipe.unet.parameters())


def optimise(pipe: Any) -> None:
    optimiser = torch.optim.AdamW(pipe.unet.parameters(), fused=True)
    for parameter in pipe.unet.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()


def one_value(pipe: Any) -> None:
    next(pipe.unet.parameters()).data.view(-1)[5] += 1e-3


def replace_processor(pipe: Any) -> None:
    pipe.unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)


def patch(pipe: Any) -> None:
    forward = pipe.unet.mid_block.forward
    pipe.unet.mid_block.forward = lambda *args, **kwargs: 2 * forward(*args, **kwargs)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "data": lambda pipe: [p.data.mul_(1.01) for p in pipe.unet.parameters()],
    "one value": one_value,
    "average": average,
    "fused optimiser": optimise,
    "numpy": lambda pipe: next(pipe.unet.parameters()).detach().numpy().__imul__(2),
    "precision": lambda pipe: pipe.unet.to(torch.float16),
    "freeu": replace_processor,
    "patch": patch,
    "autoencoder": lambda pipe: [p.data.mul_(1.01) for p in pipe.vae.parameters()],
    "adapter's scale": lambda pipe: pipe.unet.set_adapters(["style"], [0.1]),
    "another adapter": lambda pipe: pipe.unet.set_adapters(["other"], [1.0]),
    "no adapters": lambda pipe: pipe.unet.disable_adapters(),
    "fused adapter": lambda pipe: pipe.unet.fuse_lora(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_gives_another_fingerprint(change: str, build: Build) -> None:
    pipe = build("sd")
    if "adapter" in change:
        lora(pipe)
    before = model_fingerprint(pipe)
    assert model_fingerprint(pipe) == before
    CHANGES[change](pipe)
    assert model_fingerprint(pipe) != before


def test_scales_of_ip_adapters_are_part_of_it(build: Build) -> None:
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    pipe = build("sd")
    processors = {
        name: IPAdapterAttnProcessor2_0(hidden_size=8, cross_attention_dim=8, scale=0.7)
        if name.endswith("attn2.processor")
        else processor
        for name, processor in pipe.unet.attn_processors.items()
    }
    pipe.unet.set_attn_processor(processors)
    before = model_fingerprint(pipe)
    for processor in pipe.unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.2]  # as set_ip_adapter_scale does
    assert model_fingerprint(pipe) != before


def test_another_controlnet_is_another_model(build: Build) -> None:
    pipe = build("sd")
    nets = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        nets.append(
            diffusers.ControlNetModel.from_unet(
                pipe.unet, conditioning_embedding_out_channels=(4, 8), load_weights_from_unet=False
            )
        )
    found = {
        model_fingerprint(
            diffusers.StableDiffusionControlNetPipeline(
                **pipe.components, controlnet=net, requires_safety_checker=False
            )
        )
        for net in nets
    }
    assert len(found) == 2


def compiled(pipe: Any) -> None:
    pipe.unet = torch.compile(pipe.unet, backend="eager")


def offloaded(pipe: Any) -> None:
    from accelerate import cpu_offload

    # As text: of a torch.device accelerate thinks that it is no CPU, and collects garbage at every
    # tensor, so that what other tests left behind was charged to this one.
    cpu_offload(pipe.unet, execution_device="cpu")


def other_attention(pipe: Any) -> None:
    pipe.unet.set_attn_processor(diffusers.models.attention_processor.AttnProcessor())


SAME: dict[str, Callable[[Any], Any]] = {
    "compiled": compiled,
    "offloaded": offloaded,
    "attention": other_attention,
    "scheduler": lambda pipe: setattr(pipe, "scheduler", diffusers.DDPMScheduler()),
    "channels last": lambda pipe: pipe.unet.to(memory_format=torch.channels_last),
    "text encoder": lambda pipe: [p.data.mul_(2) for p in pipe.text_encoder.parameters()],
}


@pytest.mark.parametrize("change", SAME)
def test_what_does_not_change_the_model_does_not_change_its_fingerprint(
    change: str, build: Build
) -> None:
    pipe = build("sd")
    before = model_fingerprint(pipe)
    SAME[change](pipe)
    assert model_fingerprint(pipe) == before


def test_how_a_model_computes_is_a_fact_of_its_own(build: Build) -> None:
    pipe = build("sd")
    plain = compute_facts(pipe)
    assert plain["precision"] == {"unet": "float32", "vae": "float32"}
    other_attention(pipe)
    compiled(pipe)
    found = compute_facts(pipe)
    assert found["attention"]["unet"] == ["AttnProcessor"] != plain["attention"]["unet"]
    assert (plain.get("compiled"), found["compiled"]) == (None, ["unet"])
    pipe.unet.mid_block.register_forward_hook(print)
    assert compute_facts(pipe)["torch_hooks"] == {"unet": ["print"]}
    with torch.autocast("cpu", torch.bfloat16):
        assert compute_facts(pipe)["autocast"] == "bfloat16"
    pipe = build("sd")
    offloaded(pipe)
    assert offload_facts(pipe) == {"unet": ["AlignDevicesHook"]}


def test_caches_are_facts_and_part_of_the_fingerprint(build: Build) -> None:
    pipe = build("flux")
    before = model_fingerprint(pipe)
    found = set()
    for threshold in (0.2, 0.3):
        pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold))
        assert compute_facts(pipe)["caches"] == {"transformer": ["FirstBlockCacheConfig"]}
        found.add(model_fingerprint(pipe))
        pipe.transformer.disable_cache()
    assert len(found | {before}) == 3
    assert model_fingerprint(pipe) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool])
@pytest.mark.parametrize("size", [1, 2048, 5000, 3 * 8192 + 1])
def test_a_device_finds_the_same_hashes_as_the_host(
    dtype: torch.dtype, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = (torch.randn(size, generator=torch.Generator().manual_seed(0)) * 9).to(dtype)
    host = weight_hash.block_hashes(tensor)
    monkeypatch.setattr(weight_hash, "host_hashes", weight_hash.device_hashes)
    np.testing.assert_array_equal(weight_hash.block_hashes(tensor), host)


def test_a_hash_follows_every_byte_and_its_place() -> None:
    data = torch.arange(20000, dtype=torch.int32)
    whole = weight_hash.block_hashes(data)
    for place in (0, 1023, 1024, 2047, 2048, 19999):
        other = data.clone()
        other[place] += 1
        changed = weight_hash.block_hashes(other) != whole
        assert changed.tolist() == [i == place // 2048 for i in range(len(whole))]
    swapped = data.clone()
    swapped[:2] = data[:2].flip(0)
    assert (weight_hash.block_hashes(swapped) != whole)[0]


def test_weights_that_change_between_calls_are_refused(build: Build, tmp_path: Path) -> None:
    pipe = build("sd")
    with Recorder(pipe, tmp_path / "runs.zarr"):
        pipe(["a"], num_inference_steps=3, output_type="np")
        pipe(["a"], num_inference_steps=3, output_type="np")
        kept = copy.deepcopy(pipe.unet.state_dict())
        average(pipe)
        with pytest.raises(InputError, match="unet changed since this recording began"):
            pipe(["a"], num_inference_steps=3, output_type="np")
        pipe.unet.load_state_dict(kept)
        pipe(["a"], num_inference_steps=3, output_type="np")
    assert open_runs(tmp_path / "runs.zarr").sizes["run"] == 3


def test_a_call_that_computes_otherwise_is_refused(build: Build) -> None:
    pipe = build("sd")
    watch = ModelWatch(pipe)
    watch.check()
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="autocast none"):
        watch.check()
    hook = pipe.unet.register_forward_hook(print)
    with pytest.raises(InputError, match="torch_hooks none, now"):
        watch.check()
    hook.remove()
    watch.check()


@pytest.mark.parametrize("change", ["data", "average", "fused optimiser", "adapter's scale"])
def test_the_check_of_a_call_sees_what_changes_whole_tensors(change: str, build: Build) -> None:
    pipe = build("sd")
    if "adapter" in change:
        lora(pipe)
    watch = ModelWatch(pipe)
    watch.check()
    watch.check()
    CHANGES[change](pipe)
    with pytest.raises(InputError, match="unet changed"):
        watch.check()


@pytest.mark.parametrize("change", [compiled, offloaded])
def test_compiled_and_offloaded_models_are_recorded_alike(
    change: Callable[[Any], None], tiny_pipeline: Any, tmp_path: Path
) -> None:
    found = []
    for name in ("plain", "changed"):
        pipe = copy.deepcopy(tiny_pipeline)
        if name == "changed":
            change(pipe)
        record(pipe, tmp_path / f"{name}.zarr", runs=2, steps=3, scheduler="euler", seed=3)
        found.append(open_runs(tmp_path / f"{name}.zarr"))
    plain, changed = found
    assert plain.attrs["model_fingerprint"] == changed.attrs["model_fingerprint"]
    assert plain.attrs["device"] == changed.attrs["device"] == "cpu"
    for name in ("x_init", "sample", "eps"):
        np.testing.assert_array_equal(plain[name].values, changed[name].values)
