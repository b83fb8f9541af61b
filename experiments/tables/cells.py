"""Cells and tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash; no minus before a zero."""
    if value is None or value != value:
        return "-"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def span(value: float, interval: Sequence[float], digits: int = 3) -> str:
    """A figure with its interval."""
    low, high = (number(one, digits) for one in interval)
    return f"{number(value, digits)} ({low} to {high})"


def estimate(one: Mapping[str, Any] | None, digits: int = 3) -> str:
    """An `Estimate` as text."""
    if one is None or one["value"] is None:
        return "-"
    if one["low"] is None:
        return number(one["value"], digits)
    return span(one["value"], (one["low"], one["high"]), digits)


def likely(p: float | None) -> str:
    """A p-value."""
    if p is None or p != p:
        return "-"
    return "< 0.001" if p < 0.001 else number(p)


def tested(one: Mapping[str, Any]) -> str:
    """An `Estimate` and its p-value, where it has one."""
    return f"{estimate(one)}; p {likely(one['p'])}" if "p" in one else estimate(one)


def share(value: float | None) -> str:
    """Percent."""
    return "-" if value is None else f"{100 * value:.1f} %"


def shares(one: Mapping[str, Any] | None) -> str:
    """An `Estimate` of a share, in percent."""
    if one is None or one["value"] is None:
        return "-"
    if one["low"] is None:
        return share(one["value"])
    return f"{100 * one['value']:.0f} % ({100 * one['low']:.0f} to {100 * one['high']:.0f})"


def percent(one: Mapping[str, Any], *, signed: bool = False) -> str:
    """An `Estimate` of a small share, in percent with one digit."""
    if one["value"] is None:
        return "-"
    value, low, high = (
        number(100 * one[key], 1) if one[key] is not None else "-"
        for key in ("value", "low", "high")
    )
    return f"{value} % ({low} to {high})" if not signed else f"{value} ({low} to {high})"
