"""Exports prove themselves by the conformance vectors: a port in JavaScript, a torch program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from asced_analysis.calibration import calibrate
from asced_analysis.calibration.conformance import conformance_vectors
from asced_analysis.compute.source import open_source
from asced_analysis.detection.apply import detect
from asced_analysis.export import export_bundle, export_program, export_schema
from asced_analysis.thresholds.document import Thresholds
from asced_stores import open_runs
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store

PORT = Path(__file__).parent / "port" / "detector.mjs"
LEARNT_PORT = PORT.with_name("outcome.mjs")
OPTIONS: list[dict[str, Any]] = [
    {},
    {"signal": "weighted_score", "combine": "persistent", "direction": "both"},
    {"signal": "innovation", "combine": "mean", "resolution": 7, "contrast": "local"},
    {"by_position": True, "direction": "low", "blur": 0.0},
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "runs.zarr"
    synthetic_store(path, runs=64, steps=12, shape=(2, 18, 22), batch_size=32)
    return path


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
@pytest.mark.parametrize("options", OPTIONS)
def test_a_port_in_javascript_passes_the_bundle(
    options: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    thresholds = calibrate(store, false_alarm_rate=0.2, parameters=options)
    bundle = export_bundle(thresholds, tmp_path / "bundle")
    assert len(thresholds.conformance) == 2
    result = subprocess.run(
        ["node", str(PORT), str(bundle)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout) == {"passed": 2, "failed": []}


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_a_wrong_port_fails_the_bundle(store: Path, tmp_path: Path) -> None:
    bundle = export_bundle(calibrate(store, false_alarm_rate=0.2), tmp_path / "bundle")
    content = json.loads((bundle / "thresholds.json").read_text())
    content["levels"]["location"] = (np.asarray(content["levels"]["location"]) + 1.0).tolist()
    (bundle / "thresholds.json").write_text(json.dumps(content))
    result = subprocess.run(["node", str(PORT), str(bundle)], capture_output=True, check=False)
    assert result.returncode == 1


@pytest.mark.parametrize("options", OPTIONS)
def test_the_torch_program_passes_the_vectors(
    options: dict[str, Any], store: Path, tmp_path: Path
) -> None:
    thresholds = calibrate(store, false_alarm_rate=0.2, parameters=options)
    for number, vector in enumerate(thresholds.conformance):
        values = torch.tensor(vector["values"])[None]
        path = export_program(
            thresholds, tmp_path / f"{number}.pt2", shape=tuple(values.shape[-3:])
        )
        kappa = torch.tensor(vector["sigma"]) / torch.tensor(vector["alpha"])
        log_snr = torch.tensor(vector["log_snr"])
        mask, score, flagged = torch.export.load(path).module()(values, kappa, log_snr)
        assert float(score[0]) == pytest.approx(vector["score"], abs=1e-3)
        assert bool(flagged[0]) is vector["flagged"]
        rows = ["".join("1" if cell else "0" for cell in row) for row in mask[0].tolist()]
        assert rows == list(vector["mask"])


def test_the_torch_program_needs_no_python_of_ours(store: Path, tmp_path: Path) -> None:
    thresholds = calibrate(store, false_alarm_rate=0.2)
    path = export_program(thresholds, tmp_path / "detector.pt2")
    runs = open_runs(store).load()
    np.savez(
        tmp_path / "inputs.npz",
        values=runs["x0"].values.astype(np.float32),
        kappa=(runs["sigma"] / runs["alpha"]).values.astype(np.float32),
        log_snr=runs["log_snr"].values.astype(np.float32),
    )
    code = f"""
import sys, warnings
import numpy, torch
inputs = numpy.load({str(tmp_path / "inputs.npz")!r})
tensors = [torch.from_numpy(inputs[name]) for name in ("values", "kappa", "log_snr")]
mask, score, flagged = torch.export.load({str(path)!r}).module()(*tensors)
numpy.savez({str(tmp_path / "outputs.npz")!r}, mask=mask, score=score, flagged=flagged)
sys.exit(any(name.startswith("asced") for name in sys.modules))
"""
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    found = np.load(tmp_path / "outputs.npz")
    offline = detect(runs, thresholds)
    assert (found["mask"] == offline["mask"].values).mean() >= 0.9999
    np.testing.assert_allclose(found["score"], offline["score"].values, atol=1e-3)


def give_back(sample: Any, step: int) -> Any:
    """A lookahead that predicts a fixed part of what it is asked about."""
    return sample * 0.75


@pytest.fixture(scope="module", params=["wide", "looking ahead", "odd", "dynamics"])
def learnt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Learnt thresholds: pictures by mean and deviation, a lookahead, a map of odd sides.

    Those of dynamics alone, and of the odd sides, look at products of the layout.
    """
    shape = {"wide": (2, 20, 44), "looking ahead": (1, 16, 16)}.get(request.param, (1, 18, 22))
    path = tmp_path_factory.mktemp("learnt") / "runs.zarr"
    synthetic_store(path, runs=120, steps=12, shape=shape, batch_size=40)
    source, parameters = open_source(path), dict[str, Any]()
    if request.param == "dynamics":
        parameters = {"inputs": "dynamics"}
    if request.param == "looking ahead":
        source = replace(source, lookahead=give_back)
        parameters = {"lookahead": source.log_snr[8]}
    thresholds = calibrate(
        source,
        method="outcome",
        false_alarm_rate=0.2,
        parameters=parameters,
        teacher="patches",
        outcome={"epochs": 2},
        seed=1,
    )
    if request.param in ("odd", "dynamics"):
        given = dict(thresholds.parameters)
        numbers = len(given["layout_location"])
        if not given["products"]:
            more = np.random.default_rng(0).normal(scale=0.02, size=numbers * (numbers + 1) // 2)
            given |= {"products": True, "coefficients": [*given["coefficients"], *more.tolist()]}
        thresholds = replace(thresholds, parameters=given)
        thresholds = replace(thresholds, conformance=conformance_vectors(thresholds))
    assert len(thresholds.conformance) == 2
    return source, thresholds


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_a_port_of_the_learnt_detector_passes_the_bundle(learnt: Any, tmp_path: Path) -> None:
    bundle = export_bundle(learnt[1], tmp_path / "bundle")
    export_bundle(learnt[1], bundle, overwrite=True)
    run = ["node", str(LEARNT_PORT), str(bundle)]
    result = subprocess.run(run, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout) == {"passed": 2, "failed": []}
    content = json.loads((bundle / "thresholds.json").read_text())
    content["parameters"]["coefficients"][0] += 0.01
    (bundle / "thresholds.json").write_text(json.dumps(content))
    assert subprocess.run(run, capture_output=True, check=False).returncode == 1


def test_the_learnt_torch_program_passes_the_vectors(learnt: Any, tmp_path: Path) -> None:
    source, thresholds = learnt
    path = export_program(thresholds, tmp_path / "detector.pt2")
    program = torch.export.load(path).module()
    for vector in thresholds.conformance:
        values = torch.tensor(vector["values"])[None]
        eps = torch.tensor(vector["eps"]).expand_as(values[0])[None]
        more = [torch.tensor(vector["lookahead_x0"])[None]] if "lookahead_x0" in vector else []
        mask, score, flagged = program(values, eps, torch.tensor(vector["log_snr"]), *more)
        assert float(score[0]) == pytest.approx(vector["score"], abs=1e-3)
        assert bool(flagged[0]) is vector["flagged"]
        rows = ["".join("1" if cell else "0" for cell in row) for row in mask[0].tolist()]
        assert rows == list(vector["mask"])
    if source.lookahead is None:
        runs = source.dataset.load()
        arrays = [torch.from_numpy(runs[name].values.astype(np.float32)) for name in ("x0", "eps")]
        log_snr = torch.tensor(source.log_snr, dtype=torch.float32)
        mask, score, _ = program(*arrays, log_snr)
        offline = detect(runs, thresholds)
        assert (mask.numpy() == offline["mask"].values).mean() >= 0.999
        np.testing.assert_allclose(score.numpy(), offline["score"].values, atol=1e-3)


def test_the_bundle_is_whole(store: Path, tmp_path: Path) -> None:
    thresholds = calibrate(store, false_alarm_rate=0.2)
    bundle = export_bundle(thresholds, tmp_path / "bundle")
    names = sorted(path.name for path in bundle.iterdir())
    assert names == ["README.md", "conformance.json", "thresholds.json", "thresholds.schema.json"]
    assert Thresholds.load(bundle / "thresholds.json") == thresholds
    schema = json.loads((bundle / "thresholds.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((bundle / "thresholds.json").read_text()), schema)
    assert "opening by a square" in (bundle / "README.md").read_text()
    with pytest.raises(InputError, match="exists"):
        export_bundle(thresholds, bundle)
    export_bundle(thresholds, bundle, overwrite=True)
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]
    (bundle / "port.c").write_text("mine")
    with pytest.raises(InputError, match=r"bundle holds port\.c; expected an earlier output"):
        export_bundle(thresholds, bundle, overwrite=True)
    assert (bundle / "port.c").read_text() == "mine"
    assert export_schema(tmp_path / "schema.json").read_text().startswith("{")


def test_other_variants_are_refused(store: Path, tmp_path: Path) -> None:
    thresholds = calibrate(store, "score_norm", false_alarm_rate=0.2)
    with pytest.raises(InputError, match="score_norm"):
        export_bundle(thresholds, tmp_path / "bundle")
    with pytest.raises(InputError, match="score_norm"):
        export_program(thresholds, tmp_path / "detector.pt2")
    assert list(tmp_path.iterdir()) == []
