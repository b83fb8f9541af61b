r"""Which runs break, and how early that shows: against labels by eye (docs/truth-emoji.md).

    python -m experiments.detection.who_breaks runs.zarr --labels labels.csv --out who-breaks.jsonl
    python -m experiments.detection.who_breaks build/remedies/emoji/pool.zarr --set pool \
        --labels experiments/models/emoji/graded-labels.csv --out who-breaks-guidance-4.jsonl

The runs are of `emoji`, recorded with ``--activations``. Every predictor is the same forest on
other inputs; it learns from the mean grade where there are grades
(`experiments.models.emoji.grading`), and is judged on runs that it did not learn from (ten parts,
each predicted by the others). Inputs of a step know nothing of later ones.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism import features, local_realism, patch_model
from asced_analysis.realism.content import auroc, content_of, matched_auroc
from asced_analysis.realism.distances import squared_distances
from asced_analysis.realism.imagenet import imagenet_model
from asced_analysis.realism.pictures import read_pictures
from asced_stores import open_runs
from asced_stores.errors import InputError
from experiments.detection.ranking import interval
from experiments.models.emoji.grading import mean_grades
from experiments.models.emoji.network import FOLDER
from experiments.remedies.choosing import generic
from experiments.tables.cells import number, span, table

STEPS = (4, 8, 12, 16, 20)
PARTS = 10
BLOCKS = 8  # along each side
RESAMPLES = 300
CLASSES = {"faces": ("face",), "hands": ("hand",)}
Floats = NDArray[np.float64]


def read_labels(path: Path, name: str | None = None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Runs that are broken or whole at the first look, and which; unsure ones are left out.

    Parameters
    ----------
    path : Path
    name : str, optional
        The set, where the table holds several.
    """
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["pass"] == "0"]
    own = [row for row in rows if row.get("set") == name and row["label"] != "unsure"]
    if not own:
        sets = sorted({row["set"] for row in rows if row.get("set")})
        raise InputError(
            f"{path} holds no sure label of set {name!r}: expected one of {', '.join(sets) or None}"
        )
    runs, broken = zip(*((int(row["run"]), row["label"] == "broken") for row in own), strict=True)
    return np.array(runs), np.array(broken)


def by_block(x0: NDArray[np.float32]) -> Floats:
    """Colours, and the log of the mean gradient, in eight by eight blocks, shape (n, d)."""
    steps = [np.diff(x0, axis=axis, append=np.take(x0, [-1], axis)) for axis in (2, 3)]
    gradient = np.abs(np.concatenate(steps, axis=1)).mean(axis=1, keepdims=True)
    colours, edges = (
        values.reshape(
            *values.shape[:2], BLOCKS, values.shape[2] // BLOCKS, BLOCKS, values.shape[3] // BLOCKS
        )
        .mean(axis=(3, 5))
        .reshape(len(values), -1)
        for values in (x0, gradient)
    )
    return np.hstack([colours, np.log(edges + 1e-4)]).astype(np.float64)


def dynamics(ds: Any, last: int) -> Floats:
    """Log size of each change of predicted x0 up to a step, whole and of its worst block."""
    x0 = ds["x0"].isel(step=slice(0, last + 1)).values.astype(np.float32)
    change = np.square(np.diff(x0, axis=1)).mean(axis=2)
    *lead, height, width = change.shape
    blocks = change.reshape(*lead, 8, height // 8, 8, width // 8).mean(axis=(-3, -1))
    sizes = [change.mean((2, 3)), blocks.max((2, 3)), np.median(blocks, axis=(2, 3))]
    return np.log(np.concatenate(sizes, axis=1) + 1e-9).astype(np.float64)


def inputs(ds: Any, step: int) -> dict[str, Floats]:
    """What is known at a step, by name, each (run, feature)."""
    start = ds["x_init"].values.astype(np.float64)
    x0 = ds["x0"].isel(step=step).values.astype(np.float32)
    snapshot = generic(x0)
    found = {
        "starting energy": (start**2).mean((1, 2, 3))[:, None],
        "dynamics": dynamics(ds, step),
        "snapshot": snapshot,
        "snapshot, by block": np.hstack([snapshot, by_block(x0)]),
    }
    if "activations" in ds:
        inside = ds["activations"].isel(step=step).values.astype(np.float64)
        found |= {"internals": inside, "snapshot and internals": np.hstack([snapshot, inside])}
    return found


def predicted(features: Floats, taught: Floats, *, trees: int = 300, seed: int = 0) -> Floats:
    """Score of each run by a forest that was fitted without it; higher is worse."""
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.model_selection import KFold, cross_val_predict

    forest = ExtraTreesRegressor(trees, min_samples_leaf=2, max_features=0.3, random_state=seed)
    parts = KFold(PARTS, shuffle=True, random_state=seed)
    return np.asarray(cross_val_predict(forest, features, taught, cv=parts), np.float64)


def figures(
    score: Floats,
    broken: NDArray[np.bool_],
    content: Mapping[str, Floats],
    groups: NDArray[np.str_],
) -> dict[str, Any]:
    """AUROC over all, within matched content and within kinds of classes, with intervals."""

    def drawn(rows: NDArray[np.intp]) -> float:
        found = auroc(score[rows], broken[rows])
        return np.nan if found is None else found

    row: dict[str, Any] = {
        "auroc": auroc(score, broken),
        "interval": interval(drawn, len(score), resamples=RESAMPLES),
        "within_content": matched_auroc(score, broken, content),
    }
    for group in np.unique(groups):
        here = groups == group
        row[str(group)] = auroc(score[here], broken[here])
    return row


def groups_of(labels: NDArray[np.int64]) -> NDArray[np.str_]:
    """Faces, hands or others, by the class that a run was asked for."""
    known = json.loads((FOLDER / "classes.json").read_text())
    names = {one["label"]: str(one["name"]) for one in known}
    found = []
    for label in labels:
        name = names.get(int(label), "")
        kinds = [kind for kind, words in CLASSES.items() if any(word in name for word in words)]
        found.append(kinds[0] if kinds else "others")
    return np.array(found)


def self_consistency(store: str, runs: NDArray[np.int64]) -> Floats:
    """What the model itself says of the ends of some runs, less the share of content."""
    from asced_analysis.calibration.labelling import choose_teacher
    from asced_analysis.compute.source import open_source
    from experiments.models.emoji.sample import load

    source = open_source(open_runs(store))
    numbers = source.dataset["run"].values
    rows = np.array([np.flatnonzero(numbers == run)[0] for run in runs])
    fit = np.ones(source.runs, np.bool_)
    teacher = choose_teacher(source, fit, store=store, pipeline=load())
    return np.asarray(teacher.outcomes(source, rows, (16, 16))[1], np.float64)


def judges(ds: Any, real: Path) -> dict[str, Floats]:
    """How finished images look to judges that have seen no label; higher is worse."""
    pictures = read_pictures(ds, np.arange(ds.sizes["run"]))
    with np.load(real) as packed:
        held_out = packed["images"][packed["held_out"]]
        design = packed["design"][packed["held_out"]]
    images = np.moveaxis(held_out, -1, 1).astype(np.float32) / 127.5 - 1
    _, number = np.unique(design, return_inverse=True)
    found = {}
    for part, name in enumerate(("one half of the designs", "the other half")):
        mine = images[number % 2 == part]
        model = patch_model(mine, name=name)
        distance = local_realism(pictures, model)
        found[f"patches, {name}: mean"] = distance.mean((1, 2)).astype(np.float64)
        found[f"patches, {name}: worst place"] = distance.max((1, 2)).astype(np.float64)
        model = imagenet_model(mine)
        distance = local_realism(pictures, model)
        found[f"ImageNet, {name}: mean"] = distance.mean((1, 2)).astype(np.float64)
        found[f"ImageNet, {name}: worst place"] = distance.max((1, 2)).astype(np.float64)
        apart = squared_distances(features(pictures, model), model.vectors)
        found[f"ImageNet, {name}: nearest image"] = np.sqrt(apart.min(1)).astype(np.float64)
    return found


def rows(
    ds: Any, broken: NDArray[np.bool_], bad: Floats, taught: Floats, real: Path
) -> Iterator[dict[str, Any]]:
    """One row a judge and step, input and model."""
    pictures = read_pictures(ds, np.arange(ds.sizes["run"]))
    content = content_of(pictures)
    groups = groups_of(ds["label"].values)
    given = (content, groups)
    whose = {"self-consistency": taught, **judges(ds, real)}
    for name, score in whose.items():
        yield {"judge": name, **figures(score, broken, *given)}
    for step in STEPS:
        for name, known in inputs(ds, step).items():
            score = predicted(known, bad)
            yield {"step": step, "inputs": name, **figures(score, broken, *given)}


def tables(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The judges, and the forests by step, in Markdown."""
    kinds = ("auroc", "within_content", *CLASSES)
    judged = [
        [
            one["judge"],
            span(one["auroc"], one["interval"], 2),
            *(number(one[k], 2) for k in kinds[1:]),
        ]
        for one in found
        if "judge" in one
    ]
    names = list(dict.fromkeys(one["inputs"] for one in found if "inputs" in one))
    cells = {
        (
            one["inputs"],
            one["step"],
        ): f"{number(one['auroc'], 2)}, {number(one['within_content'], 2)}"
        for one in found
        if "inputs" in one
    }
    return {
        "judges": table(
            ("judge of finished images", "AUROC", "within like content", *CLASSES), judged
        ),
        "by-step": table(
            ("what is known", *(f"step {step}" for step in STEPS)),
            [[name, *(cells[name, step] for step in STEPS)] for name in names],
        ),
    }


def main() -> None:
    """Print and write one row a line, and both tables beside them."""
    from experiments.judges.writing import tell
    from experiments.models.emoji.fetch import PACKED

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--set", help="of labels, where the table holds several")
    parser.add_argument("--out", type=Path, help="File to write (*.jsonl).")
    arguments = parser.parse_args()
    runs, broken = read_labels(arguments.labels, arguments.set)
    ds = open_runs(arguments.store)
    at = {int(run): place for place, run in enumerate(ds["run"].values)}
    ds = ds.isel(run=[at[int(run)] for run in runs]).load()
    taught = self_consistency(arguments.store, runs)
    shares = {"runs": len(runs), "broken": float(broken.mean())}
    given = {
        name: float(broken[groups_of(ds["label"].values) == name].mean())
        for name in np.unique(groups_of(ds["label"].values))
    }
    bad = mean_grades(arguments.labels, arguments.set, runs)
    bad = broken.astype(np.float64) if bad is None else bad
    found = [{**shares, "broken_by_class": given}, *rows(ds, broken, bad, taught, PACKED)]
    tell(found, arguments.out)
    if arguments.out is not None:
        for name, text in tables(found).items():
            (arguments.out.parent / f"{arguments.out.stem}-{name}.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
