"""Tables about corrections."""

from __future__ import annotations

from collections.abc import Callable

from experiments.tables.cells import (
    Results,
    estimate,
    likely,
    number,
    percent,
    share,
    shares,
    table,
    tested,
)

CORRECTED = ("from step 48 back to 44", "best of two from step 44, chosen at 48")


def grid_repair(results: Results) -> str:
    """Every correction of the grid with every way to flag, at one dial."""
    found = results["grid-repair"]["dials"]["score, 0.05"]
    head = ["correction", "whom", "flagged points that break", "repaired, of these"]
    head += ["repaired, of all broken", "harmed, of all whole", "broken after"]
    head += ["against chance, points", "p (Holm)", "change of recall", "evaluations"]
    rows = [
        [
            name,
            whom if whom != "fixed" else f"fixed ({'; '.join(row['flagged_by'])})",
            *(shares(row[key]) for key in ("flagged_broken", "repaired", "repaired_of_all_broken")),
            percent(row["harmed"]),
            percent(row["broken"]),
            percent(row["against_chance"], signed=True) if whom != "chance" else "",
            likely(row["p_against_chance"]) if whom in ("learnt", "fixed", "hindsight") else "",
            estimate(row["recall_change"]),
            number(row["evaluations"], 1),
        ]
        for name, by_whom in found["rows"].items()
        for whom, row in by_whom.items()
    ]
    rows += [
        ["none, in as many steps", "", "", "", "", "", percent(one), "", "", "", steps]
        for steps, one in found["plain"].items()
    ]
    return table(head, [["none", "", "", "", "", "", percent(found["broken"]), *[""] * 4], *rows])


def grid_repair_dials(results: Results) -> str:
    """Two corrections at every dial: the learnt flags beside the others."""
    head = ["smoothed, h", "broken before", "correction", "repaired, of flagged broken (learnt)"]
    head += ["harmed, of all whole", "broken: learnt", "fixed", "chance", "everybody", "hindsight"]
    head += ["change of recall (learnt)"]
    rows = []
    for label, one in results["grid-repair"]["dials"].items():
        for name in CORRECTED:
            by_whom = one["rows"][name]
            learnt = by_whom["learnt"]
            cells = [label, percent(one["broken"]), name, shares(learnt["repaired"])]
            cells += [percent(learnt["harmed"]), percent(learnt["broken"])]
            others = ("fixed", "chance", "everybody", "hindsight")
            cells += [percent(by_whom[whom]["broken"]) for whom in others]
            rows.append([*cells, estimate(learnt["recall_change"])])
    return table(head, rows)


def ideas(name: str) -> Callable[[Results], str]:
    """Ideas or policies: what each gave."""

    def write(results: Results) -> str:
        head = [
            "idea",
            "change of local distance",
            "p (Holm)",
            "improved",
            "repaired",
            "good in the end",
        ]
        head += ["harmed, of flagged good ones", "harmed, of all good ones", "evaluations"]
        rows = [
            [
                label,
                estimate(row["change"]),
                likely(row.get("p")),
                share(row["improved"]["value"]),
                shares(row["repaired"]),
                shares(row["good"]),
                share(row["harmed_of_flagged_good"]["value"]),
                share(row["harmed_of_all_good"]),
                number(row["evaluations_per_flagged_run"], 1),
            ]
            for label, row in results[name]["rows"].items()
        ]
        return table(head, rows)

    return write


def against_controls(name: str) -> Callable[[Results], str]:
    """Ideas against their controls, paired by run."""

    def write(results: Results) -> str:
        found = results[name]["against_controls"]
        rows = [[label, estimate(row), likely(row.get("p"))] for label, row in found.items() if row]
        return table(["", "difference of the change of local distance", "p (Holm)"], rows)

    return write


def populations(results: Results) -> str:
    """Frechet distance, precision and recall."""
    found = results["policies"]["populations"]
    head = ["policy", "Frechet distance", "change", "precision", "change", "recall", "change"]
    head += ["evaluations a run"]
    rows = []
    for label, row in found.items():
        cells = [label]
        for name in ("frechet_distance", "precision", "recall"):
            cells += [number(row[name]["after"]["value"]), tested(row[name]["change"])]
        rows.append([*cells, number(row["evaluations_per_run"], 1)])
    return table(head, rows)


def equal(results: Results) -> str:
    """Restart against plain sampling for the same evaluations."""
    found = results["equal"]["rows"]
    head = ["policy", "evaluations a run", "", "images", "precision", "recall"]
    head += ["Frechet distance", "local distance"]
    rows = []
    for name, one in found.items():
        images = [*map(str, one["images"]), ""]
        start = [name, number(one["evaluations_per_run"], 1)]
        for which, count in zip(("restart", "plain", "difference"), images, strict=True):
            label = {"plain": "plain sampling of more images"}.get(which, which)
            rows.append([*start, label, count, *(tested(figure) for figure in one[which].values())])
            start = ["", ""]
    return table(head, rows)
