"""What a guarantee means, in words and as a table: for commands, reports, notebooks and cards."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asced_analysis.thresholds.content import Content
    from asced_analysis.thresholds.parts import Guarantee


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage; below one percent with two digits that count."""
    value = 100 * share
    return f"{value:.2g} %" if 0 < value < 1 and digits else f"{value:.{digits}f} %"


def promised_in_words(guarantee: Guarantee) -> str:
    """The promised rate, as it was asked for."""
    return f"{100 * guarantee.promised:g} %"


def sentence(note: str) -> str:
    """A note as a sentence of a page."""
    return f"{note[:1].upper()}{note[1:]}{'' if note.endswith('.') else '.'}"


def measured_in_words(guarantee: Guarantee) -> str:
    """The rate on held-out runs, with its interval."""
    if guarantee.measured is None or guarantee.interval is None:
        return "not measured"
    low, high = map(percent, guarantee.interval)
    held_out = f"{guarantee.report} held-out {guarantee.unit}s"
    return f"{percent(guarantee.measured)} ({low} to {high}) of {held_out}"


def promise_rows(thresholds: Content) -> list[tuple[str, str]]:
    """What thresholds are, what they promise and what was measured, as rows of a table."""
    guarantee, window = thresholds.guarantee, thresholds.window
    rows = [
        ("variant", thresholds.variant),
        ("level", f"{thresholds.levels.level:.4g}"),
        ("looks at", f"steps {window.steps[0]} to {window.steps[1]} of {window.of_steps}"),
        (
            "promised false-alarm rate",
            f"{promised_in_words(guarantee)} of {guarantee.population}",
        ),
        ("measured, 95 % interval", measured_in_words(guarantee)),
        ("method", f"{guarantee.method}; {guarantee.calibrate} calibration {guarantee.unit}s"),
        ("holds at every sample size", "yes" if guarantee.finite_sample else "no"),
        ("correction", str(thresholds.correction)),
    ]
    if thresholds.groups:
        rows.append(("groups", f"{len(thresholds.groups)} with levels of their own"))
    return rows


def guarantee_in_words(thresholds: Content) -> tuple[str, ...]:
    """What the promise means and what it does not."""
    guarantee = thresholds.guarantee
    unit = guarantee.unit
    if not guarantee.finite_sample:
        meaning = (
            f"The level aims at flagging {promised_in_words(guarantee)} of {guarantee.population}. "
            "This method has no guarantee at a finite number of runs: trust the measured rate."
        )
    elif guarantee.confidence is not None:
        meaning = (
            f"With a confidence of {percent(guarantee.confidence, 0)}, this very level flags at "
            f"most {promised_in_words(guarantee)} of new runs that are like those of the "
            f"calibration ({guarantee.population})."
        )
    else:
        meaning = (
            f"A new {unit} that is like those of the calibration ({guarantee.population}) is "
            f"flagged with a probability of at most {promised_in_words(guarantee)}, on average "
            "over calibrations: if many people calibrated on as many runs, some would see more "
            "and some less. No assumption about the model or the score is needed."
        )
    return (
        meaning,
        "It is a promise about false alarms alone. It does not say how many broken images are "
        "found, and it does not hold for another model, sampler or set of prompts.",
    )
