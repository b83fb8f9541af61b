"""Results as tables."""

from __future__ import annotations

from typing import Any

from experiments.tables.cells import likely, number, percent, share, shares, table

HEAD = (
    *("remedy", "evaluations", "broken", "of plain at equal evaluations", "p (Holm)"),
    *("Frechet distance", "precision", "recall", "against as many plain runs"),
    *("diversity", "content as drawn (p)"),
)


def remedies_table(found: dict[str, Any], budget: str) -> str:
    """One budget of one model."""
    rows = found["budgets"][budget]
    return table(HEAD, [_row(name, one) for name, one in rows.items()])


def _row(name: str, one: dict[str, Any]) -> list[str]:
    ratio = one.get("ratio")
    return [
        name,
        number(one["evaluations"], 0),
        shares(one["broken"]),
        "-" if ratio is None else number(ratio, 2),
        likely(one.get("p")),
        number(one["frechet_distance"], 2),
        share(one["precision"]),
        share(one["recall"]),
        percent(one["recall_change"], signed=True) if "recall_change" in one else "-",
        number(one["diversity"], 2),
        likely(one.get("content")),
    ]


def looks_table(found: dict[str, Any]) -> str:
    """AUROC of each predictor, by the step that it looks at."""
    looks = found["looks"]
    names = list(next(iter(looks.values())))
    return table(
        ("predictor", *(f"step {step}" for step in looks)),
        [[name, *(number(one[name], 2) for one in looks.values())] for name in names],
    )
