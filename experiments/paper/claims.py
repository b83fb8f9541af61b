"""The paper's claims, each beside what was measured here and whether it holds.

A claim about a difference holds where the 95 % interval lies on its side of zero, does not hold
where it lies on the other side, and is not shown where it holds zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.paper import published

HOLDS, FAILS, OPEN = "holds", "does not hold", "not shown"
BETTER = {"frechet_distance": -1, "precision": 1, "recall": 1}
NAMES = {"frechet_distance": "Frechet distance", "precision": "precision", "recall": "recall"}


@dataclass(frozen=True)
class Judged:
    """A claim, what was measured, and whether it holds."""

    claim: str
    here: str
    verdict: str


def claims(results: Mapping[str, Any]) -> Iterator[Judged]:
    """Every claim that the results speak to."""
    for variant, rows in results.get("table1", {}).items():
        yield from _quality(variant, rows)
    if "table2" in results:
        yield from _detection(results["table2"])
    if "figure4" in results:
        yield _regions(results["figure4"])
    if "figure7" in results:
        yield from _frequency(results["figure7"])
    for variant, rows in results.get("figure8", {}).items():
        yield _last_step(variant, rows)


def _verdict(change: Mapping[str, Any], sign: int) -> str:
    """Whether a difference lies on one side of zero; +1: it should be higher."""
    low, high = sorted(sign * end for end in _ends(change))
    return HOLDS if low > 0 else FAILS if high < 0 else OPEN


def _together(verdicts: Sequence[str]) -> str:
    """Of a claim that has several parts."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if set(verdicts) == {HOLDS} else OPEN


def _ends(change: Mapping[str, Any]) -> tuple[float, float]:
    """Of an interval; without one nothing is excluded."""
    low, high = change["low"], change["high"]
    return (-math.inf, math.inf) if low is None or high is None else (low, high)


def _span(change: Mapping[str, Any], digits: int = 3) -> str:
    """A difference with its interval."""
    low, high = _ends(change)
    span = f"{low:+.{digits}f} to {high:+.{digits}f}" if math.isfinite(low) else "no interval"
    return f"{change['value']:+.{digits}f} ({span})"


def _quality(variant: str, rows: Mapping[str, Any]) -> Iterator[Judged]:
    """Table 1."""
    if "ttc" not in rows:
        return
    own = {name: rows["ttc"]["quality"][name]["change"] for name in BETTER}
    yield Judged(
        f"ASCED lowers the FID and raises precision and recall (detector `{variant}`)",
        ", ".join(f"{NAMES[name]} {_span(own[name])}" for name in BETTER),
        _together([_verdict(own[name], sign) for name, sign in BETTER.items()]),
    )
    for other in ("state_replacement", "score_clipping"):
        if other not in rows:
            continue
        than = {name: rows[other]["quality"][name]["change"] for name in BETTER}
        verdicts, texts = [], []
        for name, sign in BETTER.items():
            apart = sign * (own[name]["value"] - than[name]["value"])
            (low, high), (other_low, other_high) = _ends(own[name]), _ends(than[name])
            overlap = low <= other_high and other_low <= high
            verdicts.append(OPEN if overlap else HOLDS if apart > 0 else FAILS)
            texts.append(f"{NAMES[name]} {sign * apart:+.3f}{' (intervals overlap)' * overlap}")
        yield Judged(
            f"it does better than {other.replace('_', ' ')} (detector `{variant}`)",
            "; ".join(texts),
            _together(verdicts),
        )
    wrong = [name for name in ("ttc, shuffled", "ttc, foreground") if name in rows]
    if wrong:
        local = {name: rows[name]["quality"]["local_realism"]["change"] for name in ["ttc", *wrong]}
        best = min(wrong, key=lambda name: local[name]["value"])
        (low, high), (best_low, best_high) = _ends(local["ttc"]), _ends(local[best])
        ahead, behind = high < best_low, best_high < low
        yield Judged(
            f"the place of its mask matters (detector `{variant}`; not asked in the paper)",
            f"local distance {_span(local['ttc'])}; mask of control `{best.removeprefix('ttc, ')}` "
            f"{_span(local[best])}",
            HOLDS if ahead else FAILS if behind else OPEN,
        )


def _detection(two: Mapping[str, Any]) -> Iterator[Judged]:
    """Table 2."""
    low, high = min(published.ACCURACY.values()), max(published.ACCURACY.values())
    for name, row in two["detectors"].items():
        if "as printed" not in name:
            continue
        first, last = row["one_draw"]
        yield Judged(
            f"detection is right in {100 * low:.0f} to {100 * high:.0f} % ({name.split(',')[0]})",
            f"{100 * row['accuracy']:.1f} % (one draw {100 * first:.1f} to {100 * last:.1f}); "
            f"flagged: {100 * row['flagged_broken']['value']:.0f} % of the broken, "
            f"{100 * row['flagged_whole']['value']:.0f} % of the whole",
            HOLDS if first > 0.5 else "inverted" if last < 0.5 else FAILS,
        )


def _regions(four: Mapping[str, Any]) -> Judged:
    """Figure 4: where the innovation of artifact regions exceeds that of their foreground."""
    found = four["signals"]["innovation"]
    ratio = found["places"]["rest of the foreground"]["artifact_over_this"]
    steps, mean, low = (np.asarray(one) for one in (found["step"], ratio["mean"], ratio["low"]))
    peak = int(np.argmax(mean))
    share = steps[peak] / four["steps"]
    above = [str(step) for step in steps[low > 1]]
    inside = published.ABNORMAL[0] <= share <= published.ABNORMAL[1]
    verdict = f"{'later' if share > published.ABNORMAL[1] else 'earlier'} than in the paper"
    return Judged(
        "artifact regions rise and fall sharply in the middle of sampling",
        f"their innovation is highest against the rest of the foreground at step {steps[peak]} of "
        f"{four['steps']} ({mean[peak]:.2f} times); above it, by the interval, at "
        f"{len(above)} of {len(steps)} steps",
        FAILS if low[peak] <= 1 else HOLDS if inside else verdict,
    )


def _frequency(seven: Mapping[str, Any]) -> Iterator[Judged]:
    """Figure 7."""
    for rule, found in seven["rules"].items():
        share, even = found["within_0.24_0.52"], seven["evenly_spread"]
        yield Judged(
            f"abnormal dynamics lie between 0.24 and 0.52 of sampling (rule `{rule}`)",
            f"{100 * share:.0f} % lie there; an even spread would give {100 * even:.0f} %",
            HOLDS if share > 0.5 else FAILS if share <= even else "more than evenly, not mostly",
        )


def _last_step(variant: str, rows: Mapping[str, Any]) -> Judged:
    """Figure 8: corrections up to T_c help, later ones do not."""
    helps = {}
    for name in ("frechet_distance", "local_realism"):
        helps[name] = sorted(
            float(share)
            for share, row in rows.items()
            if _ends(row["quality"][name]["change"])[1] < 0
        )
    later = {n: [s for s in found if s > published.LAST_USEFUL] for n, found in helps.items()}
    told = [
        f"the {label} falls by more than its interval at {_list(helps[name])}"
        for name, label in (
            ("frechet_distance", "Frechet distance"),
            ("local_realism", "local distance"),
        )
    ]
    none = not helps["frechet_distance"] and not helps["local_realism"]
    return Judged(
        f"0.48 of sampling is the last useful step of correction (detector `{variant}`)",
        f"of {len(rows)} steps tried, {'; '.join(told)}",
        OPEN if none else FAILS if later["frechet_distance"] or later["local_realism"] else HOLDS,
    )


def _list(shares: Sequence[float]) -> str:
    """Shares of sampling as text."""
    return ", ".join(f"{share:g}" for share in shares) or "none"
