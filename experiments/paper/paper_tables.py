"""Tables of the experiments as Markdown, the paper's own figures beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.paper import published
from experiments.paper.claims import claims

NAMES = {
    "original": "original",
    "state_replacement": "state replacement",
    "score_clipping": "score clipping",
    "ttc": "ASCED (`ttc`)",
    "ttc, shuffled": "`ttc` in another run's mask",
    "ttc, foreground": "`ttc` in random foreground",
    "ttc, everywhere": "`ttc` everywhere",
}
HEADS = ("Frechet distance", "precision", "recall", "local distance")
FIGURES = ("frechet_distance", "precision", "recall", "local_realism")


def tables(results: Mapping[str, Any], others: Sequence[Mapping[str, Any]] = ()) -> dict[str, str]:
    """All tables as Markdown by name; `others` are results by other features."""
    found = {"published": "\n".join(_published_quality())}
    for variant, one in results.get("table1", {}).items():
        found[f"table1-{variant}"] = "\n".join(_table_one(one))
    if "table2" in results:
        found["table2"] = "\n".join(_table_two(results["table2"]))
    for variant, one in results.get("figure8", {}).items():
        found[f"figure8-{variant}"] = "\n".join(_table_eight(one))
    if others:
        found["features"] = "\n".join(_features([results, *others]))
    judged = list(claims(results))
    if judged:
        rows = [f"| {one.claim} | {one.here} | **{one.verdict}** |" for one in judged]
        found["claims"] = "\n".join(["| the paper | here | |", "|---|---|---|", *rows])
    return found


TITLES = {
    "claims": "What the paper claims, and what holds here",
    "published": "Table 1 of the paper (FID / precision / recall; 10,000 images each)",
    "table2": "Table 2",
    "features": "The targeted correction by other features",
}


def printed(name: str, results: Mapping[str, Any]) -> str:
    """What stands above a table on a terminal."""
    kind, _, variant = name.partition("-")
    if variant:
        number = {"table1": "Table 1", "figure8": "Figure 8"}[kind]
        return f"{number}, detector `{variant}` ({results['runs']} runs, {results['features']})"
    return TITLES[name]


def _features(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Changes that the methods make, by detector, as each feature extractor sees them."""
    yield f"| features | detector | method | {' | '.join(HEADS)} |"
    yield "|---|---|---|---|---|---|---|"
    for one in results:
        for variant, rows in one.get("table1", {}).items():
            for name in published.METHODS[1:]:
                if name in rows:
                    quality = rows[name]["quality"]
                    cells = [_text(quality[figure]["change"], 3) for figure in FIGURES]
                    start = f"| {one['features']} | `{variant}` | {NAMES[name]} |"
                    yield f"{start} {' | '.join(cells)} |"


def _text(figure: Mapping[str, float | None], digits: int = 3) -> str:
    """Value with its interval."""
    if figure["value"] is None:
        return "-"
    texts = [f"{v:.{digits}f}" for v in figure.values() if v is not None]
    value, *ends = (text.lstrip("-") if float(text) == 0 else text for text in texts)
    return f"{value} ({' to '.join(ends) or 'no interval'})"


def _table_one(one: Mapping[str, Any]) -> Iterator[str]:
    yield "| method | Frechet distance | precision | recall | local distance | flagged, area |"
    yield "|---|---|---|---|---|---|"
    methods = one
    first = next(iter(methods.values()))["quality"]
    yield f"| original | {' | '.join(_text(first[name]['before']) for name in FIGURES)} | - |"
    for name, row in methods.items():
        cells = [f"{_text(row['quality'][figure]['after'])}" for figure in FIGURES]
        area = "-" if row["mask_area"] is None else f"{100 * row['mask_area']:.1f} %"
        flagged = f"{100 * row['flagged'] / row['runs']:.0f} %, {area}"
        yield f"| {NAMES[name]} | {' | '.join(cells)} | {flagged} |"
    yield "| *change against the original, paired* | | | | | *improved* |"
    for name, row in methods.items():
        cells = [_text(row["quality"][figure]["change"], 3) for figure in FIGURES]
        share = "-"
        if row["flagged"] > 1:
            share = f"{_text({k: 100 * v for k, v in row['improved'].items()}, 0)} %"
        yield f"| {NAMES[name]} | {' | '.join(cells)} | {share} |"


def _published_quality() -> Iterator[str]:
    yield f"| method | {' | '.join(published.DATA_SETS)} |"
    yield "|---" * (len(published.DATA_SETS) + 1) + "|"
    for name, rows in published.QUALITY.items():
        cells = [f"{a:.2f} / {b:.3f} / {c:.3f}" for a, b, c in rows]
        yield f"| {NAMES[name]} | {' | '.join(cells)} |"


def _table_two(two: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{two['each']} with and {two['each']} without artifacts, drawn from {two['broken']} and "
        f"{two['whole']}; labels: {two['labels_by']}.\n"
    )
    yield "| detector | accuracy | one draw of them | flagged with | flagged without | AUROC |"
    yield "|---|---|---|---|---|---|"
    for name, row in two["detectors"].items():
        low, high = row["one_draw"]
        yield (
            f"| {name} | {100 * row['accuracy']:.1f} % | {100 * low:.1f} to {100 * high:.1f} % | "
            f"{100 * row['flagged_broken']['value']:.0f} % | "
            f"{100 * row['flagged_whole']['value']:.0f} % | {_text(row['auroc'], 3)} |"
        )
    told = ", ".join(f"{name} {100 * one:.1f} %" for name, one in published.ACCURACY.items())
    yield f"\nThe paper: {told}."


def _table_eight(one: Mapping[str, Any]) -> Iterator[str]:
    yield "| T_c / T | step | flagged | Frechet distance | precision | recall | local distance |"
    yield "|---|---|---|---|---|---|---|"
    for share, row in sorted(one.items(), key=lambda item: float(item[0])):
        cells = [_text(row["quality"][figure]["change"], 3) for figure in FIGURES]
        flagged = f"{100 * row['flagged'] / row['runs']:.0f} %"
        yield f"| {share} | {row['correction_step']} | {flagged} | {' | '.join(cells)} |"
