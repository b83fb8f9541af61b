"""Write the tables of docs/truth.md, and its plots, from the results of `run.py`.

    python benchmarks/truth/report.py build/truth/results

Every table stands between two comments, `<!-- table NAME -->` and `<!-- end -->`; the text around
them is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from causes import beyond, energy, energy_strata, forms, levelled, levelled_starts
from cells import Results, estimate, number, share, shares, span, table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "truth.md"
IMAGES = ROOT / "docs" / "images"


def judge(results: Results) -> str:
    """The judge's own examination."""
    found = results["judge"]
    rows = []
    for name in ("judge", "teacher"):
        one = found[name]
        rows.append(
            [
                f"**{name}**: sample against real",
                "",
                span(one["sample_against_real"], one["sample_against_real_interval"]),
                "",
            ]
        )
        rows += [
            [
                f"{name}: real images with a square of {kind}",
                share(one[kind]["worse_than_twin"]),
                number(one[kind]["image_auroc"]),
                number(one[kind]["place_auroc"]),
            ]
            for kind in ("noise", "upside down", "hole", "piece of another")
        ]
    return table(["", "worse than its intact twin", "image AUROC", "place AUROC"], rows)


def ranking(found: Results, *, pixels: str, extra: Sequence[str] = ()) -> str:
    """Detectors by image and by pixel."""
    names = {
        "matched_auroc": "within matched content",
        "foreground_correlation": "rank correlation in the foreground",
    }
    head = ["detector", "image AUROC", "accuracy at equal numbers", "risk-coverage area"]
    head += [f"pixel average precision ({pixels})", "IoU", *(names[key] for key in extra)]
    head += ["ms a run"]
    rows = []
    for name, row in found["rows"].items():
        cells = [
            name,
            span(row["image_auroc"], row["image_auroc_interval"]),
            share(row["accuracy"]),
            number(row["risk_coverage_area"]),
            span(row["pixel_precision"], row["pixel_precision_interval"]),
            number(row["overlap"]),
            *(span(row[key], row[f"{key}_interval"]) for key in extra),
            number(row["milliseconds"], 1),
        ]
        rows.append(cells)
    return table(head, rows)


def natural(last: int) -> Callable[[Results], str]:
    """The natural set up to a step."""

    def write(results: Results) -> str:
        found = results[f"natural-{last}"]
        return ranking(
            found,
            pixels=f"base rate {number(found['base_rate_places'])}",
            extra=("matched_auroc", "foreground_correlation"),
        )

    return write


def ceiling(results: Results) -> str:
    """What the teacher's own look at the finished image knows of the judge's."""
    found = results["natural-8"]["ceiling"]
    rows = [[name, *(number(v) for v in row.values())] for name, row in found.items()]
    return table(["", *(name.replace("_", " ") for name in found["teacher"])], rows)


def planted(results: Results) -> str:
    """Planted faults."""
    found = results["planted"]
    return ranking(found, pixels=f"damage, base rate {number(found['base_rate_damage'])}")


def kinds(results: Results) -> str:
    """What became of the faults, by kind and contrast."""
    found = results["planted"]["groups"]
    rows = [
        [name.replace("_", " "), str(one["runs"]), share(one["changed"]), share(one["broken"])]
        for name, one in found.items()
    ]
    return table(["faults", "runs", "changed in the end", "stay broken"], rows)


def by_kind(results: Results) -> str:
    """Image AUROC / pixel precision by group, and delays."""
    found = results["planted"]
    groups = list(found["groups"])
    head = ["detector", *(g.replace("_", " ") for g in groups)]
    head += ["detected at 5 % false alarms", "flagged before the onset", "median delay, steps"]
    rows = []
    for name, row in found["rows"].items():
        cells = [
            f"{number(row['by_group'][g]['image_auroc'], 2)} / "
            f"{number(row['by_group'][g]['pixel_precision'], 2)}"
            for g in groups
        ]
        cells += [share(row["detected"]), share(row["flagged_before_onset"])]
        rows.append([name, *cells, number(row["delay"], 0)])
    return table(head, rows)


def grid(results: Results) -> str:
    """The 25-Gaussian grid."""
    found = results["grid"]
    names = list(found["mixture"][0]["aurocs"])
    rows = [
        [f"{kind}, {row['smoothing']:g}", share(row["broken"])]
        + [number(row["aurocs"][name], 2) for name in names]
        for kind in ("mixture", "score")
        for row in found[kind]
    ]
    return table(["smoothed, h", "broken", *names], rows)


CORRECTED = ("from step 48 back to 44", "best of two from step 44, chosen at 48")


def grid_repair(results: Results) -> str:
    """Every correction of the grid with every way to flag, at one dial."""
    found = results["grid-repair"]["dials"]["score, 0.05"]
    head = ["correction", "whom", "flagged points that break", "repaired, of these"]
    head += ["repaired, of all broken", "harmed, of all whole", "broken after"]
    head += ["against chance", "p (Holm)", "recall", "evaluations"]
    rows = [
        [
            name,
            whom if whom != "fixed" else f"fixed ({'; '.join(row['flagged_by'])})",
            *(shares(row[key]) for key in ("flagged_broken", "repaired", "repaired_of_all_broken")),
            percent(row["harmed"]),
            percent(row["broken"]),
            percent(row["against_chance"], signed=True) if whom != "chance" else "",
            number(row["p_against_chance"]) if whom in ("learnt", "fixed", "hindsight") else "",
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


def percent(one: Mapping[str, Any], *, signed: bool = False) -> str:
    """An `Estimate` of a small share, in percent with one digit."""
    if one["value"] is None:
        return "-"
    value, low, high = (
        number(100 * one[key], 1) if one[key] is not None else "-"
        for key in ("value", "low", "high")
    )
    return f"{value} % ({low} to {high})" if not signed else f"{value} ({low} to {high})"


def shapes_rates(results: Results) -> str:
    """How often each rule is broken."""
    found = results["shapes"]
    names = list(found["rates"])
    rows = [
        [label, *(share(one[name]) for name in names)]
        for label, one in (("model", found["rates"]), ("data", found["data"]))
    ]
    return table(["", *names], rows)


def shapes(last: int) -> Callable[[Results], str]:
    """SIMPLE SHAPES up to a step."""

    def write(results: Results) -> str:
        found = results["shapes"][f"up to step {last}"]
        return ranking(found, pixels=f"base rate {number(found['base_rate'])}")

    return write


def shapes_corrections(results: Results) -> str:
    """What re-noising does to shapes."""
    found = results["shapes"]["corrections"]["rows"]
    rows = [
        [
            name,
            shares(row["broken"]),
            estimate(row.get("change")),
            shares(row.get("repaired")),
            shares(row.get("harmed")),
        ]
        for name, row in found.items()
    ]
    return table(["", "broken", "change", "repaired", "harmed"], rows)


def where(results: Results) -> str:
    """Strategies by maps."""
    found = results["where"]["rows"]
    head = ["strategy", "mask", "change of local distance", "in the damaged tenth", "elsewhere"]
    head += ["per changed pixel", "improved", "repaired", "artifact area after"]
    head += ["change outside the mask", "worth of the mask", "p (Holm)"]
    rows = []
    for strategy, by_mask in found.items():
        for name, row in by_mask.items():
            worth = row.get("worth")
            rows.append(
                [
                    strategy,
                    name,
                    estimate(row["all"]),
                    number(row["damaged"]["value"]),
                    number(row["undamaged"]["value"]),
                    number(row["per_changed_pixel"]["value"]),
                    share(row["improved"]["value"]),
                    share(row["repaired"]["value"]),
                    share(row["artifact_area_after"]),
                    number(row["outside_mask"]["value"]),
                    estimate(worth) if worth else "",
                    number(row.get("p_worth", row["p"])),
                ]
            )
    return table(head, rows)


def ideas(name: str) -> Callable[[Results], str]:
    """Ideas or policies: what each gave."""

    def write(results: Results) -> str:
        head = ["idea", "change of local distance", "improved", "repaired", "good in the end"]
        head += ["harmed, of flagged good ones", "harmed, of all good ones", "evaluations"]
        rows = [
            [
                label,
                estimate(row["change"]),
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


def worth(results: Results) -> str:
    """Ideas against their controls, paired by run."""
    found = results["ideas"]["worth"]
    rows = [[name, estimate(row)] for name, row in found.items() if row is not None]
    return table(["", "difference of the change of local distance"], rows)


def populations(results: Results) -> str:
    """Frechet distance, precision and recall."""
    found = results["policies"]["populations"]
    head = ["policy", "Frechet distance", "change", "precision", "change", "recall", "change"]
    head += ["evaluations a run"]
    rows = []
    for label, row in found.items():
        cells = [label]
        for name in ("frechet_distance", "precision", "recall"):
            cells += [number(row[name]["after"]["value"]), estimate(row[name]["change"])]
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
        for which, count in zip(("restart", "plain", "difference"), images, strict=True):
            label = {"plain": "plain sampling of more images"}.get(which, which)
            start = (
                [name, number(one["evaluations_per_run"], 1)] if which == "restart" else ["", ""]
            )
            rows.append(
                [*start, label, count, *(estimate(figure) for figure in one[which].values())]
            )
    return table(head, rows)


TABLES: dict[str, Callable[[Results], str]] = {
    "judge": judge,
    "beyond": beyond,
    "natural-8": natural(8),
    "natural-12": natural(12),
    "ceiling": ceiling,
    "planted": planted,
    "kinds": kinds,
    "by-kind": by_kind,
    "grid": grid,
    "grid-repair": grid_repair,
    "grid-repair-dials": grid_repair_dials,
    "shapes-rates": shapes_rates,
    "shapes-12": shapes(12),
    "shapes-18": shapes(18),
    "shapes-corrections": shapes_corrections,
    "where": where,
    "forms": forms,
    "energy": energy,
    "energy-strata": energy_strata,
    "levelled": levelled,
    "levelled-starts": levelled_starts,
    "ideas": ideas("ideas"),
    "worth": worth,
    "uplift": ideas("uplift"),
    "policies": ideas("policies"),
    "populations": populations,
    "equal": equal,
}


def fill(page: str, results: Results) -> tuple[str, list[str]]:
    """Put tables between their comments; names of those without results are returned."""
    missing = []

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        try:
            written = TABLES[name](results)
        except KeyError:
            missing.append(name)
            return match.group(0)
        return f"<!-- table {name} -->\n\n{written}\n\n<!-- end -->"

    text = re.sub(r"<!-- table ([\w-]+) -->.*?<!-- end -->", replace, page, flags=re.DOTALL)
    return text, missing


def draw(results: Results, folder: Path) -> None:
    """Risk-coverage curves of the natural and the planted set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets = [(n, t) for n, t in (("natural-8", "natural, up to step 8"), ("planted", "planted"))]
    sets = [(name, title) for name, title in sets if name in results]
    if not sets:
        return
    figure, axes = plt.subplots(
        1, len(sets), layout="constrained", figsize=(3.6 * len(sets) + 1.8, 3.2), squeeze=False
    )
    for axis, (name, title) in zip(axes[0], sets, strict=True):
        for label, row in results[name]["rows"].items():
            if "alone" not in label:
                risks = row["risk_coverage"]
                coverage = [(k + 1) / len(risks) for k in range(len(risks))]
                axis.plot(coverage, risks, label=label, lw=1.2)
        axis.set(title=title, xlabel="share of runs kept", ylabel="share broken among them")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "truth-risk-coverage.png", dpi=90)


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path("build/truth/results"))
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    results = {path.stem: json.loads(path.read_text()) for path in arguments.results.glob("*.json")}
    text, missing = fill(arguments.page.read_text(), results)
    arguments.page.write_text(text)
    draw(results, IMAGES)
    if missing:
        print(f"no results for: {', '.join(missing)}")


if __name__ == "__main__":
    main()
