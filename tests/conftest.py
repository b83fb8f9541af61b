"""Fixtures for every test."""

from __future__ import annotations

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
