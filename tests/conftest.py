"""Fixtures for every test."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Warnings are errors, except those that come from inside a library and that we cannot prevent.
NOT_OURS = [
    # diffusers 0.42 calls NumPy functions on tensors of torch 2.13.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:__array_wrap__ must accept context and return_scalar:DeprecationWarning",
]


def pytest_configure(config: pytest.Config) -> None:
    for line in NOT_OURS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Any]:
    """Build an unconditional pipeline of random weights: kind ("DDIM", "DDPM"), channels."""
    import diffusers
    import torch

    def make(kind: str, channels: int, **scheduler: Any) -> Any:
        torch.manual_seed(0)
        unet = diffusers.UNet2DModel(
            sample_size=16,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            add_attention=False,
        ).eval()
        # With velocities, even a random network's samples stay within a few units.
        given = {"clip_sample": False, "prediction_type": "v_prediction", **scheduler}
        pipe = getattr(diffusers, f"{kind}Pipeline")(
            unet, getattr(diffusers, f"{kind}Scheduler")(**given)
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


@pytest.fixture(scope="session")
def tiny_pipeline(make_tiny: Callable[..., Any]) -> Any:
    """A DDIM pipeline of random weights, samples of 1x16x16. Do not change it."""
    return make_tiny("DDIM", 1, timestep_spacing="trailing")


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline as a diffusers folder."""
    path = tmp_path_factory.mktemp("pipelines") / "tiny"
    tiny_pipeline.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tiny_runs(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 20 runs of the tiny pipeline, 10 steps, batches of 8, checkpoints 3 and 6."""
    from asced_recorders import record

    path = tmp_path_factory.mktemp("stores") / "tiny.zarr"
    record(tiny_pipeline, path, runs=20, steps=10, batch_size=8, seed=7, checkpoints=(3, 6))
    return path


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """moto's S3 server on the loopback, with an empty bucket ``trajectories``."""
    boto3 = pytest.importorskip("boto3")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    before = {name: os.environ.get(name) for name in keys}
    os.environ.update(keys)
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(
        Bucket="trajectories"
    )
    yield endpoint
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    server.stop()


@pytest.fixture
def s3_path() -> str:
    """A store's path that nobody else has."""
    return f"s3://trajectories/{uuid.uuid4().hex}/runs.zarr"
