"""Places for the stores' tests: a folder, memory, and moto's S3 on 127.0.0.1."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
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
    return f"s3://trajectories/{uuid.uuid4().hex}/runs.zarr"


_COUNTS: dict[str, dict[str, int]] = {}


@pytest.fixture
def stress_counts() -> dict[str, dict[str, int]]:
    """What stress tests counted; printed as the last line of all."""
    return _COUNTS


def pytest_unconfigure() -> None:
    if _COUNTS:
        parts = (
            f"{kind}: " + ", ".join(f"{count} {what}" for what, count in counts.items())
            for kind, counts in _COUNTS.items()
        )
        print("stress | " + " | ".join(parts))
