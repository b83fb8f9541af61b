"""ComfyUI's own engine on the CPU, from a checkout that COMFYUI names; `make test-comfyui`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = os.environ.get("COMFYUI", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the engine where there is none."""
    if CHECKOUT:
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip("needs ComfyUI: make test-comfyui COMFYUI=CHECKOUT"))


def with_torchvision() -> None:
    """Import torchvision, of which the engine takes transforms, beside any build of torch."""
    import torch

    try:
        import torchvision
    except RuntimeError:  # a wheel for CUDA beside a torch for the CPU: its operators don't load
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision  # noqa: F401

        sys.modules["torchvision"].asced_library = library  # it holds while the process does


@pytest.fixture(scope="session")
def engine() -> Any:
    """ComfyUI's ``nodes`` module, on the CPU."""
    import warnings

    sys.path.insert(0, CHECKOUT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with_torchvision()
        import comfy.cli_args

        comfy.cli_args.args.cpu = True
        import nodes
    return nodes


@pytest.fixture(scope="session")
def tiny(engine: Any) -> Callable[..., Any]:
    """MODELs of ComfyUI's own UNet with random weights, by kind of ``ModelType``."""
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models_base
    import torch

    class Config(comfy.supported_models_base.BASE):
        latent_format = comfy.latent_formats.SD15
        unet_extra_config = {}  # noqa: RUF012

    def make(kind: str = "EPS") -> Any:
        torch.manual_seed(0)
        config = Config(
            {
                "image_size": 8,
                "in_channels": 4,
                "out_channels": 4,
                "model_channels": 32,
                "num_res_blocks": [1],
                "channel_mult": [1],
                "transformer_depth": [1],
                "transformer_depth_output": [1, 1],
                "transformer_depth_middle": 0,
                "num_heads": 2,
                "context_dim": 16,
                "use_spatial_transformer": True,
                "dtype": torch.float32,
            }
        )
        if kind.startswith("FL"):
            config.sampling_settings["shift"] = 1.15
        model = comfy.model_base.BaseModel(config, getattr(comfy.model_base.ModelType, kind))
        model.diffusion_model.requires_grad_(False).eval()
        for name, weight in model.diffusion_model.named_parameters():
            if weight.ndim > 1:  # the engine leaves them as memory was
                torch.nn.init.kaiming_normal_(weight)
                weight *= 0.1 if name.startswith("out.") else 1
            else:
                torch.nn.init.constant_(weight, float(name.endswith("weight")))
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)

    return make
