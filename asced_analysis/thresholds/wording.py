"""What a guarantee means, in words: for reports, and for cards on the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asced_analysis.thresholds.document import Thresholds


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{100 * share:.{digits}f} %"


def sentence(note: str) -> str:
    """A note as a sentence of a page."""
    return f"{note[:1].upper()}{note[1:]}{'' if note.endswith('.') else '.'}"


def guarantee_in_words(thresholds: Thresholds) -> tuple[str, ...]:
    """What the promise means and what it does not."""
    guarantee = thresholds.guarantee
    unit = guarantee.unit
    if not guarantee.finite_sample:
        meaning = (
            f"The level aims at flagging {percent(guarantee.promised)} of {guarantee.population}. "
            "This method has no guarantee at a finite number of runs: trust the measured rate."
        )
    elif guarantee.confidence is not None:
        meaning = (
            f"With a confidence of {percent(guarantee.confidence, 0)}, this very level flags at "
            f"most {percent(guarantee.promised)} of new runs that are like those of the "
            f"calibration ({guarantee.population})."
        )
    else:
        meaning = (
            f"A new {unit} that is like those of the calibration ({guarantee.population}) is "
            f"flagged with a probability of at most {percent(guarantee.promised)}, on average "
            "over calibrations: if many people calibrated on as many runs, some would see more "
            "and some less. No assumption about the model or the score is needed."
        )
    return (
        meaning,
        "It is a promise about false alarms alone. It does not say how many broken images are "
        "found, and it does not hold for another model, sampler or set of prompts.",
    )
