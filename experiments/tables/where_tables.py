"""Tables about every strategy with every mask, on the natural, the planted and the shapes set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from experiments.tables.cells import Results, estimate, number, percent, share, shares, table
from experiments.tables.correction_tables import likely

SETS: dict[str, Callable[[Results], Mapping[str, Any]]] = {
    "natural": lambda results: results["where"],
    "planted": lambda results: results["where-planted"],
    "shapes": lambda results: results["shapes"]["where"],
}
DIGESTED = ("natural", "planted")  # few runs of shapes break, none at one place
QUALITIES = ("frechet_distance", "precision", "recall")


def masks(name: str) -> Callable[[Results], str]:
    """Effects by strategy and mask."""
    percents = name != "natural"  # the score is a share: of damaged pixels, or of broken runs

    def write(results: Results) -> str:
        found = SETS[name](results)["rows"]
        places = any("effect" in row for one in found.values() for row in one.values())
        head = ["strategy", "mask", CHANGES[name], "effect against the best control", "p (Holm)"]
        if places:
            head += ["local distance in the damaged tenth" if name == "natural" else DAMAGED]
            head += ["elsewhere", "per changed pixel", "improved"]
        head += ["repaired", "harmed", "damaged area after", "change outside the mask"]
        cell = (lambda one: percent(one, signed=True)) if percents else estimate
        rows = []
        for strategy, by_mask in found.items():
            for mask, row in by_mask.items():
                cells = [strategy, mask, cell(row["change"])]
                cells += [cell(row["against_controls"]) if "against_controls" in row else ""]
                cells += [likely(row.get("p_against", row["p"]))]
                if places:
                    where = ("damaged", "undamaged", "per_changed_pixel")
                    cells += [number(row["effect"][one]["value"]) for one in where]
                    cells += [share(row["effect"]["improved"]["value"])]
                cells += [shares(row["repaired"]), shares(row["harmed"]), share(row["area_after"])]
                rows.append([*cells, number(row["outside"]["value"])])
        return table(head, rows)

    return write


CHANGES = {
    "natural": "change of local distance",
    "planted": "change of the damaged area, points",
    "shapes": "change of broken runs, points",
}
DAMAGED = "local distance where damaged"


def flags(name: str) -> Callable[[Results], str]:
    """What each detector's own flags and masks do to the whole set."""

    def write(results: Results) -> str:
        found = SETS[name](results)["policies"]["rows"]
        head = ["strategy", "flags and masks by", "flagged that break", "repaired, of all broken"]
        head += ["harmed, of all whole", "change of broken runs, points", "p (Holm)"]
        head += ["change of Frechet distance", "of precision", "of recall"]
        rows = [
            [
                strategy,
                mask,
                share(row["flagged_broken"]["value"]),
                shares(row["repaired"]),
                percent(row["harmed"]),
                percent(row["change"], signed=True),
                likely(row["p"]),
                *(estimate(row[one]) for one in QUALITIES),
            ]
            for strategy, by_mask in found.items()
            for mask, row in by_mask.items()
        ]
        return table(head, rows)

    return write


def digest(results: Results) -> str:
    """TTC's effect by mask on the sets of `DIGESTED`, and the difference from controls."""
    head = ["mask"]
    for name in DIGESTED:
        head += [f"{name}: {what}" for what in (CHANGES[name], "against controls", "p (Holm)")]
    rows: dict[str, list[str]] = {}
    for place, name in enumerate(DIGESTED):
        cell = estimate if name == "natural" else (lambda one: percent(one, signed=True))
        for mask, row in SETS[name](results)["rows"]["ttc, additive"].items():
            cells = rows.setdefault(mask, [mask])
            cells += [""] * (1 + 3 * place - len(cells))
            against = row.get("against_controls")
            cells += [cell(row["change"]), cell(against) if against else ""]
            cells += [likely(row["p_against"]) if against else ""]
    width = len(head)
    return table(head, [[*cells, *[""] * (width - len(cells))] for cells in rows.values()])


def whole(results: Results) -> str:
    """Whole runs of shapes corrected."""
    rows = [
        [
            name,
            shares(row["broken"]),
            percent(row["change"], signed=True) if "change" in row else "",
            likely(row["p"]) if "p" in row else "",
            shares(row.get("repaired")),
            shares(row.get("harmed")),
            number(row.get("evaluations"), 1),
        ]
        for name, row in results["shapes"]["whole"]["rows"].items()
    ]
    head = ["", "broken", "change, points", "p (Holm)", "repaired", "harmed"]
    return table([*head, "evaluations a run"], rows)
