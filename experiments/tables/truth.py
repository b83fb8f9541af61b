"""Write the tables of docs/results/truth and the plots from what `experiments.truth` measured.

    python -m experiments.tables.truth build/truth/results

Each table is a file, which a page of docs/ includes; the text around it is written by hand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from asced_analysis.plots import save_figure, style
from experiments.tables import where_tables
from experiments.tables.causes import (
    beyond,
    energy,
    energy_strata,
    forms,
    normalised_noise,
    normalised_starts,
    samplers,
)
from experiments.tables.cells import Results, number, share, span, table
from experiments.tables.correction_tables import (
    against_controls,
    equal,
    grid_repair,
    grid_repair_dials,
    ideas,
    populations,
)
from experiments.tables.files import RESULTS, write_tables

IMAGES = RESULTS.parent / "images"
COLOURS = (style.VERMILION, style.BLUE, style.GREEN, style.ORANGE, style.GREY)


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
                share(one[kind]["worse_than_intact"]),
                number(one[kind]["image_auroc"]),
                number(one[kind]["place_auroc"]),
            ]
            for kind in ("noise", "upside down", "hole", "piece of another")
        ]
    return table(["", "worse than the intact run", "image AUROC", "place AUROC"], rows)


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
    """Image AUROC / pixel precision by group."""
    found = results["planted"]
    groups = list(found["groups"])
    head = ["detector", *(g.replace("_", " ") for g in groups)]
    rows = []
    for name, row in found["rows"].items():
        cells = [
            f"{number(row['by_group'][g]['image_auroc'], 2)} / "
            f"{number(row['by_group'][g]['pixel_precision'], 2)}"
            for g in groups
        ]
        rows.append([name, *cells])
    return table(head, rows)


def by_kind_overlap(results: Results) -> str:
    """Intersection over union by group, at one level for all groups."""
    found = results["planted"]
    groups = list(found["groups"])
    rows = [
        [
            name,
            number(row["overlap"]),
            *(number(row["by_group"][group]["overlap"]) for group in groups),
        ]
        for name, row in found["rows"].items()
    ]
    return table(["detector", "all", *(group.replace("_", " ") for group in groups)], rows)


def by_kind_delay(results: Results) -> str:
    """Share detected after the onset and median delay, by group."""
    found = results["planted"]
    groups = list(found["groups"])
    head = ["detector", "all", *(group.replace("_", " ") for group in groups)]
    head += ["flagged before the onset"]

    def cell(one: Mapping[str, Any]) -> str:
        return f"{share(one['detected'])} / {number(one['delay'], 0)}"

    rows = [
        [
            name,
            cell(row),
            *(cell(row["by_group"][group]) for group in groups),
            share(row["flagged_before_onset"]),
        ]
        for name, row in found["rows"].items()
    ]
    return table(head, rows)


def options(results: Results) -> str:
    """Choices of `calibrated`."""
    found = results["options"]
    head = ["", "planted: image AUROC", "score traps alone"]
    head += [
        f"pixel average precision, damage (base rate {number(found['base_rate_damage'])})",
        f"the same, fault (base rate {number(found['base_rate_fault'])})",
        "natural: image AUROC",
        f"pixel average precision (base rate {number(found['base_rate_places'])})",
    ]
    rows = [
        [
            name,
            span(row["image_auroc"], row["image_auroc_interval"]),
            number(row["score_trap_auroc"]),
            span(row["damage"]["pixel_precision"], row["damage"]["pixel_precision_interval"]),
            number(row["fault"]),
            span(row["natural_image_auroc"], row["natural_image_auroc_interval"]),
            number(row["natural_pixel_precision"]),
        ]
        for name, row in found["rows"].items()
    ]
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


TABLES: dict[str, Callable[[Results], str]] = {
    "judge": judge,
    "beyond": beyond,
    "natural-8": natural(8),
    "natural-12": natural(12),
    "ceiling": ceiling,
    "planted": planted,
    "kinds": kinds,
    "by-kind": by_kind,
    "by-kind-overlap": by_kind_overlap,
    "by-kind-delay": by_kind_delay,
    "options": options,
    "grid": grid,
    "grid-repair": grid_repair,
    "grid-repair-dials": grid_repair_dials,
    "shapes-rates": shapes_rates,
    "shapes-12": shapes(12),
    "shapes-18": shapes(18),
    "shapes-8": shapes(8),
    "shapes-whole": where_tables.whole,
    "masks": where_tables.digest,
    **{f"masks-{name}": where_tables.masks(name) for name in where_tables.SETS},
    **{f"flags-{name}": where_tables.flags(name) for name in where_tables.SETS},
    "forms": forms,
    "energy": energy,
    "energy-strata": energy_strata,
    "normalised": normalised_noise,
    "normalised-starts": normalised_starts,
    "samplers": samplers,
    "ideas": ideas("ideas"),
    "against-controls": against_controls("ideas"),
    "uplift": ideas("uplift"),
    "uplift-against-controls": against_controls("uplift"),
    "policies": ideas("policies"),
    "populations": populations,
    "equal": equal,
}


def written(results: Results) -> dict[str, str]:
    """Every table that there are results for."""
    found = {}
    for name, write in TABLES.items():
        with suppress(KeyError):
            found[name] = write(results)
    return found


def draw(results: Results, folder: Path) -> None:
    """Risk-coverage curves of the natural and the planted set."""
    sets = [(n, t) for n, t in (("natural-8", "natural, up to step 8"), ("planted", "planted"))]
    sets = [(name, title) for name, title in sets if name in results]
    if not sets:
        return
    with style.look():
        figure = style.figure(height=3.4)
        axes = figure.subplots(1, len(sets), squeeze=False)[0]
        for axis, (name, title) in zip(axes, sets, strict=True):
            base = max(row["risk_coverage"][-1] for row in results[name]["rows"].values())
            axis.axhline(base, color=style.GREY, lw=1, ls=":")
            labels = [label for label in results[name]["rows"] if "alone" not in label]
            for place, label in enumerate(labels):
                risks = results[name]["rows"][label]["risk_coverage"]
                coverage = [(k + 1) / len(risks) for k in range(len(risks))]
                colour = COLOURS[place % len(COLOURS)]
                dashes = ("-", "--")[place // len(COLOURS) % 2]
                axis.plot(coverage, risks, dashes, label=label, color=colour, lw=1.4)
            axis.set_title(title, fontsize="medium")
            axis.set(xlabel="share of runs kept", xlim=(0, 1))
            axis.set_ylim(bottom=0)
        axes[0].set_ylabel("share broken among them")
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=4,
            fontsize="x-small",
        )
        folder.mkdir(parents=True, exist_ok=True)
        save_figure(figure, folder / "truth-risk-coverage.png")


def main() -> None:
    """Write tables and plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path("build/truth/results"))
    parser.add_argument("--out", type=Path, default=RESULTS / "truth", help="folder of tables")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of plots")
    arguments = parser.parse_args()
    results = {path.stem: json.loads(path.read_text()) for path in arguments.results.glob("*.json")}
    tables = written(results)
    write_tables(arguments.out, tables)
    if missing := [name for name in TABLES if name not in tables]:
        print(f"no results for {', '.join(missing)}: these tables stay as they were")
    draw(results, arguments.images)


if __name__ == "__main__":
    main()
