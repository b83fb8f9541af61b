"""Detection variants that can be written as a `torch.export` program, one module each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from asced_stores.registry import Registry

Program: TypeAlias = tuple[Any, tuple[Any, ...], tuple[tuple[str, ...], ...]]
"""A torch module, example inputs, and by input the names of its leading free dimensions."""

PROGRAMS: Registry[Callable[[Any, tuple[int, ...]], Program]] = Registry(
    "variant that can be exported as a program",
    group="asced.export",
    package="asced_analysis.export",
    modules=("calibrated", "outcome"),
    attribute="PROGRAM",
)
