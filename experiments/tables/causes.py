"""Tables that say what breaking comes from."""

from __future__ import annotations

from experiments.tables.cells import (
    Results,
    estimate,
    likely,
    number,
    share,
    shares,
    span,
    table,
    tested,
)


def beyond(results: Results) -> str:
    """How much of the samples' tail is damage."""
    found = results["judge"]
    head = ["", *(f"less real than {float(q):.0%} of real images" for q in ("0.9", "0.95", "0.99"))]
    head += ["real images beyond the samples' worst-quarter limit"]
    rows = [
        [
            name,
            *(shares(one) for one in found[name]["beyond_real"].values()),
            share(found[name]["real_beyond_worst_quarter"]),
        ]
        for name in ("judge", "teacher")
    ]
    return table(head, rows)


def forms(results: Results) -> str:
    """The same noise in one piece, scattered, spread thin."""
    found = results["forms"]
    head = ["where fresh noise goes", "change of local distance", "p (Holm)", "repaired"]
    head += ["detail left"]
    rows = [
        [
            name,
            estimate(row["change"]),
            likely(row.get("p")),
            shares(row["repaired"]),
            number(row["detail"]),
        ]
        for name, row in found["rows"].items()
    ]
    rows.append(["*nowhere*", "", "", "", number(found["detail_before"])])
    rows.append(["*runs that are not flagged*", "", "", "", number(found["detail_of_the_others"])])
    return table(head, rows)


def energy(results: Results) -> str:
    """What the starting noise knows beside the detectors, and what they know beyond it."""
    head = ["known", "worst quarter, AUROC", "less real than 99 % of real images, AUROC"]
    head += ["worst quarter among runs of equal energy, AUROC"]
    names = ("image_auroc", "broken_auroc", "matched_auroc")
    rows = [
        [label, *(span(row[name], row[f"{name}_interval"]) for name in names)]
        for label, row in results["energy"]["rows"].items()
    ]
    return table(head, rows)


def energy_strata(results: Results) -> str:
    """How often runs break by the energy that they start with."""
    head = ["root mean square of the starting noise", "in the worst quarter"]
    head += ["less real than 99 % of real images"]
    rows = [
        [number(one["energy"]), shares(one["worst_quarter"]), shares(one["broken"])]
        for one in results["energy"]["strata"]
    ]
    return table(head, rows)


def normalised_noise(results: Results) -> str:
    """Flagged runs whose noise is normalised on the way."""
    found = results["energy"]["corrections"]
    rows = [
        [
            name,
            estimate(row["change"]),
            likely(row.get("p")),
            shares(row["repaired"]),
            number(row["detail"]),
        ]
        for name, row in found["rows"].items()
    ]
    rows.append(["*as they are*", "", "", "", number(found["detail_before"])])
    return table(["", "change of local distance", "p (Holm)", "repaired", "detail left"], rows)


def normalised_starts(results: Results) -> str:
    """The population from starts of one energy."""
    found = results["energy"]["populations"]
    head = ["starting noise", "less real than 95 % of real images", "than 99 %"]
    head += ["of these repaired", "new ones", "than 99 %, by the teacher", "by whitened patches"]
    head += ["detail"]
    names = ("local_realism", "frechet_distance", "precision", "recall")
    head += [f"change of {name.replace('_', ' ')}" for name in names]
    head[8] = "change of local distance"
    rows = []
    for label, row in found["rows"].items():
        compared = row["compared"]
        rows.append(
            [
                label,
                *(shares(one) for one in row["beyond_real"].values()),
                shares(row["broken_repaired"]) if compared else "",
                share(row["broken_harmed"]["value"]) if compared else "",
                *(shares(one) for one in row["beyond_real_by"].values()),
                number(row["detail"]),
                *(tested(compared[name]["change"]) if compared else "" for name in names),
            ]
        )
    rows.append(
        [
            "*real images*",
            "5 %",
            "1 %",
            "",
            "",
            "1 %",
            "1 %",
            number(found["detail_of_real"]),
            *[""] * 4,
        ]
    )
    return table(head, rows)


def samplers(results: Results) -> str:
    """What the starting noise predicts with other samplers."""
    head = ["sampler, 25 steps", "runs", "starting noise: worst quarter, AUROC"]
    head += ["less real than 99 % of real images", "local distance", "detail"]
    rows = [
        [
            label,
            str(row["runs"]),
            span(row["image_auroc"], row["image_auroc_interval"]),
            shares(row["broken"]),
            estimate(row["distance"]),
            number(row["detail"]),
        ]
        for label, row in results["energy"]["samplers"].items()
    ]
    return table(head, rows)
