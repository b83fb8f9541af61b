"""Strategies by name; `asced_analysis.thresholds.registries` says where they come from."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from asced_analysis.correction.regions import region_name
from asced_analysis.correction.strategy import Strategy
from asced_analysis.thresholds import registries
from asced_stores.errors import InputError, UnknownOptionError
from asced_stores.registry import Registry

__all__ = ["STRATEGIES", "make_strategy", "parameters_of"]

STRATEGIES: Registry[type[Strategy]] = registries.STRATEGIES


def make_strategy(strategy: str | Strategy, **parameters: Any) -> Strategy:
    """Build a strategy by name, or return one that is already built.

    Raises
    ------
    InputError
        For an unknown name or parameter; the message lists the known ones.

    Examples
    --------
    >>> from asced_analysis.correction import make_strategy
    >>> make_strategy("ttc", noise_scale=0.1).noise_scale
    0.1
    """
    if isinstance(strategy, Strategy):
        return strategy
    kind = STRATEGIES.get(strategy)
    known = {field.name for field in fields(kind)}
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise UnknownOptionError(
            f"strategy {strategy} has no parameter {unknown[0]!r}; it has "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    try:
        return kind(**parameters)
    except TypeError as error:
        raise InputError(f"a parameter of strategy {strategy} makes no sense: {error}") from error


def known_parameters() -> set[str]:
    """Names of the parameters of all strategies."""
    return {one.name for name in STRATEGIES for one in fields(STRATEGIES.get(name))}


def known(strategy: Strategy) -> Strategy:
    """Make a strategy object of one's own known by its name, in this process.

    Raises
    ------
    InputError
        Where it has no name, or that of another strategy.
    """
    if strategy.name == Strategy.name:
        raise InputError(
            f"{type(strategy).__name__} has no name, by which stores and reports would know it: "
            "give the class one (name = ...)"
        )
    STRATEGIES.register(strategy.name, type(strategy))
    return strategy


def parameters_of(strategy: Strategy) -> dict[str, Any]:
    """Parameters of a strategy as a store keeps them: numbers, names and lists."""
    return {name: _plain(value) for name, value in asdict(strategy).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return region_name(value) if callable(value) else value
