"""What `outcome` has learnt from self-consistency by step 8 of 25, against an independent truth.

    python -m experiments.judges.learnt --only shapes --store shapes.zarr
    python -m experiments.judges.learnt --only fashion --store runs.zarr

One half of the recorded runs is learnt from; on the other half the teacher's own outcome and the
learnt score are compared with what neither has seen: rules of shapes that are broken (counted), or
the worst quarter by the embedded judge (real images, `fashion`). AUROC over all and within like
content; what is left of the outcome without what content, and content and the energy of the start,
say of it. The row ``the truth`` learns from that truth itself: no teacher can teach more. Of shapes
the rules are also counted on what the model predicts at a step, which is all that shows by then.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis import calibrate, open_runs
from asced_analysis.calibration.labelling import choose_teacher
from asced_analysis.compute.source import open_source
from asced_analysis.detection.apply import detect
from asced_analysis.realism.content import auroc, content_of, explained_by, matched_auroc, shown
from asced_recorders import load_pipeline
from experiments.judges.writing import tell

LOOKS = (8, 10, 12, 14, 16, 20, 24)
SHAPES = Path(__file__).parents[1] / "models" / "shapes"


def truth_of(
    kind: str, samples: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Pictures, and how bad each is: 0 or 1 where it is counted."""
    if kind == "shapes":
        from experiments.datasets.shapes import judge, unfold

        pictures = unfold(samples)
        return pictures, judge(pictures).broken.astype(np.float64)
    from asced_analysis.realism import load_embedded, local_realism

    return samples, local_realism(samples, load_embedded("judge")).mean((1, 2), dtype=np.float64)


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a teacher, and how well the outcome itself agrees with the truth."""
    dataset = open_runs(args.store)
    pictures, bad = truth_of(args.only, dataset["sample"].values.astype(np.float32))
    broken = bad > (0.5 if args.only == "shapes" else np.quantile(bad, 0.75))
    runs = dataset["run"].values
    half = len(runs) // 2
    fresh = np.arange(half, len(runs))
    content = content_of(pictures[fresh], dataset["x_init"].values[fresh])
    pipe = load_pipeline(SHAPES if args.only == "shapes" else "fashion", device="cpu")

    def against(score: NDArray[Any]) -> dict[str, float | None]:
        return {
            "auroc": auroc(score, broken[fresh]),
            "auroc_matched": matched_auroc(score, broken[fresh], shown(content)),
        }

    shared = {"data": args.only, "runs": len(fresh), "broken": float(broken.mean())}
    for step in LOOKS if args.only == "shapes" else ():
        expected = dataset["x0"].isel(run=fresh, step=step).values.astype(np.float32)
        seen = against(truth_of("shapes", expected)[1])
        yield {**shared, "score": f"rules counted on predicted x0, step {step}", **seen}
    source = open_source(dataset)
    labeller = choose_teacher(
        source, np.ones(source.runs, bool), pipeline=pipe, store=args.store, draws=args.draws
    )
    outcome = labeller.outcomes(source, fresh, source.sample_shape[-2:])[1]
    yield {**shared, "score": "self-consistency of the finished sample", **against(outcome)}
    for name, taken in (("content", shown(content)), ("content and starting energy", content)):
        share, predicted = explained_by(outcome, taken)
        said = f"the same less {name}"
        yield {**shared, "score": said, **against(outcome - predicted), "explained": share}
    known = dataset.isel(run=slice(0, half))
    given = {int(run): float(value) for run, value in zip(runs[:half], bad, strict=False)}
    for name, teacher in (
        ("self-consistency", {"pipeline": pipe}),
        ("the truth", {"outcomes": given}),
    ):
        for within in (True, False):
            learnt = calibrate(
                known,
                method="outcome",
                false_alarm_rate=0.2,
                window=(0.0, args.step / dataset.sizes["step"]),
                outcome={"epochs": args.epochs, "draws": args.draws, "within_content": within},
                fractions=(0.9, 0.1, 0.0),
                **teacher,
            )
            score = detect(dataset.isel(run=fresh), learnt)["score"].values
            said = f"learnt from {name} by step {args.step}" + ("" if within else ", as it is")
            assert learnt.teacher is not None
            explained = learnt.teacher["content"]["explained"]
            yield {**shared, "score": said, **against(score), "explained": explained}


def main() -> None:
    """Print one JSON line a teacher."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["shapes", "fashion"], required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--step", type=int, default=8)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", help="File to write (*.jsonl).")
    args = parser.parse_args()
    tell(rows(args), args.out)


if __name__ == "__main__":
    main()
