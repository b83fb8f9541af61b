"""Predictors of who breaks: what is planted is found, what is noise is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from experiments.detection.who_breaks import figures, inputs, predicted, read_labels
from experiments.models.emoji import corrected


def test_only_the_input_that_knows_predicts() -> None:
    rng = np.random.default_rng(0)
    broken = rng.permutation(240) < 72
    inside = rng.normal(size=(240, 5, 12)) + broken[:, None, None] * [2.0, *[0.0] * 11]
    ds = xr.Dataset(
        {
            "x0": (("run", "step", "channel", "y", "x"), rng.normal(size=(240, 5, 3, 16, 16))),
            "x_init": (("run", "channel", "y", "x"), rng.normal(size=(240, 3, 16, 16))),
            "activations": (("run", "step", "activation"), inside),
        }
    )
    content = {"area": rng.random(240)}
    groups = np.where(np.arange(240) % 2, "faces", "hands")
    found = {
        name: figures(predicted(features, broken.astype(float), trees=60), broken, content, groups)
        for name, features in inputs(ds, 4).items()
    }
    assert found["internals"]["auroc"] > 0.85
    assert found["internals"]["within_content"] > 0.8
    assert {"faces", "hands"} < set(found["internals"])
    for name in ("starting energy", "dynamics", "snapshot", "snapshot, by block"):
        assert 0.3 < found[name]["auroc"] < 0.7, name  # 72 of 240: .5 +- .04
        low, high = found[name]["interval"]
        assert low < 0.5 < high, name


def test_unsure_runs_and_second_looks_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(
        "run,pass,label,x,y,width,height\n0,0,broken,,,,\n1,0,unsure,,,,\n2,0,whole,,,,\n0,1,whole,,,,\n"
    )
    runs, broken = read_labels(path)
    assert runs.tolist() == [0, 2]
    assert broken.tolist() == [True, False]


def test_corrected_versions_are_compared_run_by_run() -> None:
    said = {"recorded": "b" * 20, "box": "w" * 12 + "b" * 8, "shuffled": "w" * 2 + "b" * 18}
    words = {"w": "whole", "b": "broken"}
    rows = [
        {"run": str(run), "set": arm, "label": words[one]}
        for arm, labels in said.items()
        for run, one in enumerate(labels)
    ]
    found = corrected.whole(rows)
    more = corrected.compared(found["box"], found["shuffled"])
    assert more["value"] == 0.5
    assert 0.2 < more["low"] < 0.5 < more["high"] < 0.8
    assert more["p"] == 2 * 0.5**10  # ten runs changed, all one way
    assert "| box | 60.0 % |" in corrected.result(rows)
