"""What was tried, what won, and what a user writes to get it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from asced_analysis.evaluation.intervals import Estimate
from asced_analysis.realism.claims import Reference, claims_of
from asced_stores.errors import InputError

FORMAT = "asced-remedies"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Trial:
    """One remedy, drawn and judged.

    Attributes
    ----------
    title, code : str
        What it is, and what a user writes to get it.
    evaluations : float
        A delivered image; guidance counts as one with what it guides.
    broken : Estimate
        Share beyond the limit of the worst quarter of plain runs.
    change : Estimate
        Of that share, against plain sampling.
    distance : Estimate
        Change of mean local distance against plain sampling; lower is better.
    content : float or None
        Smallest p-value (Kolmogorov and Smirnov, Bonferroni) that area, brightness, contrast and
        colourfulness are as drawn by plain sampling: the price in diversity.
    """

    title: str
    code: str
    evaluations: float
    broken: Estimate
    change: Estimate
    distance: Estimate
    content: float | None


@dataclass(frozen=True)
class Remedies:
    """All that was tried, the best of it, and its confirmation.

    Attributes
    ----------
    trials : tuple of Trial
        As the chooser saw them, plain sampling first.
    confirmed : tuple of Trial
        Plain sampling, plain sampling in all steps of the budget, and the chosen remedy: on seeds
        that took no part in the choice, by a judge that took none.
    best : str
        Title of the chosen remedy.
    helps : bool
        Whether the confirmed share of broken runs is below that of every plain sampling: the
        interval of each difference lies below 0.
    budget, runs : int
    chooser, judge : str
    reference : Reference
        Of the judge.
    skipped : mapping of str to str
        What was not tried, and why.

    Examples
    --------
    >>> from asced_analysis.evaluation import Remedies
    >>> found = Remedies.load("remedies.json")
    >>> found.trials[0].title, len(found.confirmed) >= 2
    ('plain, 12 steps', True)
    """

    trials: tuple[Trial, ...]
    confirmed: tuple[Trial, ...]
    best: str
    helps: bool
    budget: int
    runs: int
    chooser: str
    judge: str
    reference: Reference
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """What a user writes to get the best remedy."""
        return next(one.code for one in self.trials if one.title == self.best)

    def verdict(self) -> str:
        """One sentence."""
        last, plain = self.confirmed[-1], self.confirmed[0]
        worst = claims_of(self.reference).worst
        if self.helps:
            return (
                f"{last.title} helps: on fresh seeds {_percent(last.broken)} of the runs are as "
                f"bad as {worst}, where plain sampling has {_percent(plain.broken)}."
            )
        return (
            f"Nothing is shown to beat plain sampling within {self.budget} evaluations: the best, "
            f"{last.title}, has {_percent(last.broken)} on fresh seeds, plain sampling "
            f"{_percent(plain.broken)} (difference {last.change})."
        )

    def table(self) -> list[tuple[str, ...]]:
        """Rows for people: title, evaluations, share broken, its change, content."""
        rows: list[tuple[str, ...]] = [
            ("tried", "evaluations", "broken", "change", "content as drawn (p)")
        ]
        rows += [_row(one) for one in self.trials]
        rows.append((f"on fresh seeds, by {self.judge}", "", "", "", ""))
        return rows + [_row(one) for one in self.confirmed]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `asced tune --remedies --out` writes them."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "budget": self.budget,
            "runs": self.runs,
            "chooser": self.chooser,
            "judge": {"name": self.judge, "reference": self.reference.to_dict()},
            "best": self.best,
            "helps": self.helps,
            "verdict": self.verdict(),
            "code": self.code,
            "trials": [asdict(one) for one in self.trials],
            "confirmed": [asdict(one) for one in self.confirmed],
            "skipped": dict(self.skipped),
        }

    @classmethod
    def load(cls, path: str | Path) -> Remedies:
        """Read what `asced tune --remedies --out` wrote.

        Raises
        ------
        InputError
            For another kind of file, or another version.
        """
        try:
            data = json.loads(Path(path).read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as a table of remedies: {error}") from error
        kind = data.get("format") if isinstance(data, dict) else None
        if kind != FORMAT or data.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{path} is no table of remedies of version {FORMAT_VERSION}: make one with "
                "`asced tune --remedies --out FILE`"
            )
        own = {name: data[name] for name in data if name in cls.__dataclass_fields__}
        return msgspec.convert(
            {**own, "judge": data["judge"]["name"], "reference": data["judge"]["reference"]}, cls
        )

    def _repr_html_(self) -> str:
        """The table for notebooks."""
        from asced_stores.notebook import html_table

        head, *rows = self.table()
        skipped = [f"Not tried: {title}: {why}." for title, why in self.skipped.items()]
        return html_table("Remedies", head, rows, " ".join([self.verdict(), *skipped]))


def _row(one: Trial) -> tuple[str, ...]:
    content = "-" if one.content is None else f"{one.content:.2g}"
    return (
        one.title,
        f"{one.evaluations:.3g}",
        _percent(one.broken),
        "-" if one.change.value is None else str(one.change),
        content,
    )


def _percent(share: Estimate) -> str:
    if share.value is None:
        return "-"
    return f"{100 * share.value:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f})"  # type: ignore[operator]
