"""The contract of a store, on every backend."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from store_contract import StoreContract


class TestLocalDisk(StoreContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        return str(tmp_path / "runs.zarr")


class TestMemory(StoreContract):
    @pytest.fixture
    def path(self) -> str:
        return f"memory://{uuid.uuid4().hex}"


class TestObjectStorage(StoreContract):
    @pytest.fixture
    def path(self, s3_path: str) -> str:
        return s3_path

    @pytest.fixture
    def storage_options(self, s3_endpoint: str) -> dict[str, Any]:
        return {"endpoint": s3_endpoint}
