"""Pipelines of every family, from tiny configurations and random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tiny_pipelines import BUILDERS


@pytest.fixture
def build() -> Callable[..., Any]:
    """Build a tiny pipeline of a family, always with the same random weights."""
    import torch

    def make(name: str, *args: Any, **kwargs: Any) -> Any:
        torch.manual_seed(0)
        pipe = BUILDERS[name](*args, **kwargs)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make
