"""Thresholds files: read back what was written, and refuse everything else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from asced_analysis.calibration import calibrate
from asced_analysis.calibration.drift import _sparse
from asced_analysis.detection import outcome_network
from asced_analysis.thresholds.document import (
    FingerprintMismatchError,
    PortabilityWarning,
    Thresholds,
    ThresholdsError,
    parse_json,
    schema,
)
from asced_analysis.thresholds.fingerprints import fingerprint_of
from asced_analysis.thresholds.wording import guarantee_in_words, percent, promise_rows
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory: pytest.TempPathFactory) -> Thresholds:
    path = tmp_path_factory.mktemp("file") / "runs.zarr"
    synthetic_store(path, runs=64, steps=12, shape=(1, 16, 16), batch_size=32)
    return calibrate(path, false_alarm_rate=0.2)


def test_what_is_written_is_read_back(thresholds: Thresholds, tmp_path: Path) -> None:
    path = thresholds.save(tmp_path / "thresholds.json")
    assert Thresholds.load(path) == thresholds
    assert [file.name for file in tmp_path.iterdir()] == ["thresholds.json"]
    with pytest.raises(InputError, match="exists"):
        thresholds.save(path)
    thresholds.save(path, overwrite=True)
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(json.loads(path.read_text()), schema())


def test_a_mismatch_names_what_differs(thresholds: Thresholds, tmp_path: Path) -> None:
    path = thresholds.save(tmp_path / "thresholds.json")
    here = {**thresholds.fingerprint, "model_fingerprint": "b", "sample_shape": (3, 16, 16)}
    with pytest.raises(FingerprintMismatchError) as caught:
        Thresholds.load(path, fingerprint=here)
    assert "model_fingerprint is 'b'" in str(caught.value)
    assert "sample_shape is (3, 16, 16)" in str(caught.value)
    assert "prediction_type" not in str(caught.value)
    assert caught.value.exit_status == 2
    assert Thresholds.load(path, fingerprint=here, override=True) == thresholds
    assert Thresholds.load(path, fingerprint=thresholds.fingerprint) == thresholds


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "no JSON"),
        (b"[1, 2]", "no thresholds file"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"format": "asced-thresholds", "format_version": "2.0"}', "version 2.0"),
        (b'{"format": "asced-thresholds", "format_version": 1}', "expected something like"),
        (b'{"format": "asced-thresholds", "format": "asced-thresholds"}', "twice"),
        (b'{"format": "asced-thresholds", "format_version": "1.0", "x": NaN}', "NaN"),
        (
            b'{"format": "asced-thresholds", "format_version": "1.0"}',
            "required property .*: calibrate again",
        ),
        (b"9" * 10_000, "no JSON"),
    ],
)
def test_files_that_are_none(raw: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    path.write_bytes(raw)
    with pytest.raises(ThresholdsError, match=message):
        Thresholds.load(path)


def test_missing_and_huge_files(tmp_path: Path) -> None:
    with pytest.raises(ThresholdsError, match="does not exist; make one with"):
        Thresholds.load(tmp_path / "none.json")
    with pytest.raises(ThresholdsError, match="is a folder; expected a thresholds file"):
        Thresholds.load(tmp_path)
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(20 * 2**20)
    with pytest.raises(ThresholdsError, match="more than any thresholds file"):
        Thresholds.load(huge)


Edit = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c["levels"].update(level=float("inf")),
        lambda c: c["levels"].update(level="3"),
        lambda c: c["levels"].update(scale=[0.0] * len(c["levels"]["scale"])),
        lambda c: c["levels"].update(scale=c["levels"]["scale"][:-1]),
        lambda c: c["levels"]["log_snr"].reverse(),
        lambda c: c["window"].update(steps=[5, 2]),
        lambda c: c["window"].update(of_steps=3),
        lambda c: c["parameters"].update(extra=1),
        lambda c: c["parameters"].update(signal="magic"),
        lambda c: c["guarantee"].update(promised=1.5),
        lambda c: c["guarantee"].update(promised=0),
        lambda c: c["guarantee"].update(promised=0.01),  # its order statistic promises less
        lambda c: c["guarantee"].update(confidence=2),
        lambda c: c["guarantee"].update(confidence=1.0),
        lambda c: c["guarantee"].update(order_statistic=0),
        lambda c: c["guarantee"].update(interval=[0.9, 0.1]),
        lambda c: c["levels"].update(level=-1e300),
        lambda c: c["groups"].update(a=1e300),
        lambda c: c["window"].update(log_snr=[90.0, 99.0]),
        lambda c: c["window"].update(normalised_time=[0.9, 0.1]),
        lambda c: c["correction"].update(log_snr=1e300),
        lambda c: c.update(variant="outcome"),
        lambda c: c.update(weights={"name": "../../etc/passwd", "sha256": "0" * 64}),
        lambda c: c.update(weights={"name": "a.safetensors", "sha256": "0" * 64}),
        lambda c: c["correction"].update(strategy="rm -rf"),
        lambda c: c["groups"].update(a=None),
    ],
)
def test_edits_that_make_no_sense_are_refused(edit: Edit, thresholds: Thresholds) -> None:
    content = thresholds.to_dict()
    edit(content)
    with pytest.raises(ThresholdsError):
        Thresholds.from_dict(content)


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    inside: list[tuple[Any, ...]] = []
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            inside += [(*path, key), *places(value, (*path, key))]
    return inside


JUNK: list[Any] = [
    None, True, -1, 0, 1, 2**70, 1e308, -0.5, "", "calibrated", "0" * 5000, [], [[]], {}, {"a": 1},
    float("inf"), float("nan"), [1e9] * 50,
]  # fmt: skip


def mutate(content: dict[str, Any], rng: np.random.Generator) -> tuple[dict[str, Any], bool]:
    """A changed copy, and whether it must be refused."""
    changed = copy.deepcopy(content)
    path = places(changed)[rng.integers(len(places(changed)))]
    parent: Any = changed
    for key in path[:-1]:
        parent = parent[key]
    kind = rng.integers(4)
    free = path[0] in ("groups", "counts") or path[:2] == ("guarantee", "needed")
    if kind == 0 and isinstance(parent, dict):
        parent[f"key{rng.integers(9)}"] = JUNK[rng.integers(len(JUNK))]
        return changed, not free
    if kind == 1 and isinstance(parent, dict):
        del parent[path[-1]]
        return changed, not free
    if kind == 2:
        parent[path[-1]] = float("nan") if rng.integers(2) else float("inf")
        return changed, True
    parent[path[-1]] = JUNK[rng.integers(len(JUNK))]
    return changed, False


def test_two_thousand_broken_files_are_refused_or_mean_what_they_say(
    thresholds: Thresholds,
) -> None:
    rng = np.random.default_rng(0)
    small = replace(thresholds, conformance=(), counts={}, groups={"a": 1.0})
    whole = small.to_dict()
    raw = json.dumps(whole).encode()
    refused = 0
    for _ in range(1000):  # bytes that flip, vanish or repeat
        data = bytearray(raw)
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(len(data)))
            if rng.integers(3):
                data[place] = int(rng.integers(256))
            else:
                del data[place : place + int(rng.integers(1, 40))]
        refused += refuses(bytes(data))
    for _ in range(1000):  # values of another kind, keys too many or too few
        changed, must = mutate(whole, rng)
        found = refuses(json.dumps(changed).encode())
        assert found or not must, changed
        refused += found
    assert refused > 1200


def refuses(data: bytes) -> bool:
    """Whether a file is refused; what is accepted must read back as the very same content."""
    try:
        content = parse_json(data, "fuzz")
        accepted = Thresholds.from_dict(content)
    except ThresholdsError:
        return True
    assert accepted.to_dict() == content
    return False


def test_weights_travel_beside_the_file_and_are_checked(
    thresholds: Thresholds, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    shapes = [(5, 8, 3, 3), (1, 5, 3, 3)]
    layers = [
        (rng.normal(size=shape).astype(np.float32), np.zeros(shape[0], np.float32))
        for shape in shapes
    ]
    blob = outcome_network.layers_to_bytes(layers)
    for (weight, bias), (again, shift) in zip(
        layers, outcome_network.layers_from_bytes(blob), strict=True
    ):
        np.testing.assert_array_equal(weight, again)
        np.testing.assert_array_equal(bias, shift)
    for damaged in (blob[:-4], b"", blob[:40], outcome_network.layers_to_bytes(layers[:1])):
        with pytest.raises(InputError):
            outcome_network.layers_from_bytes(damaged)


@pytest.mark.parametrize("side", ["runs", "thresholds"])
def test_a_model_known_on_one_side_only_warns(side: str, thresholds: Thresholds) -> None:
    unknown = {**thresholds.fingerprint, "model_fingerprint": None}
    here = unknown if side == "runs" else thresholds.fingerprint
    if side == "thresholds":
        thresholds = replace(thresholds, fingerprint=unknown)
    with pytest.warns(PortabilityWarning, match=f"the {side} do|these {side} do"):
        thresholds.check_fingerprint(here)
    neither = replace(thresholds, fingerprint=unknown)
    neither.check_fingerprint(unknown)  # a warning would be an error


@pytest.mark.parametrize("size", [1.0, 1e9, 1e300])
def test_counts_of_any_score_can_be_shipped(size: float) -> None:
    shipped = _sparse(np.asarray([0.0, -size, size]))
    bounds = schema()["$defs"]["SparseCounts"]["properties"]["bins"]["items"]
    assert all(bounds["minimum"] <= edge <= bounds["maximum"] for edge in shipped["bins"])
    assert sum(shipped["counts"]) == 3


def test_other_conditions_of_computing_are_said(thresholds: Thresholds) -> None:
    facts = {"compute": {"precision": {"unet": "float32"}, "compiled": ["unet"]}}
    own = {**thresholds.fingerprint, **_compute(facts)}
    thresholds = replace(thresholds, fingerprint=own)
    thresholds.check_fingerprint(own)
    thresholds.check_fingerprint(dict(thresholds.fingerprint) | {"compute": None})
    bare = _compute({"compute": {"precision": {"unet": "float32"}}})
    with pytest.warns(PortabilityWarning, match=r'compiled none, then \["unet"\]'):
        thresholds.check_fingerprint(own | bare)


def _compute(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"compute": fingerprint_of(attributes, (1, 4, 4))["compute"]}


@pytest.mark.parametrize(
    ("rate", "words", "tenth"),
    [
        (0.05, "5 %", "0.5 %"),
        (0.0125, "1.25 %", "0.12 %"),
        (0.0005, "0.05 %", "0.005 %"),
        (0.2, "20 %", "2.0 %"),
    ],
)
def test_a_promise_is_told_as_it_was_asked_for(
    thresholds: Thresholds, rate: float, words: str, tenth: str
) -> None:
    asked = replace(thresholds, guarantee=replace(thresholds.guarantee, promised=rate))
    assert f"{words} of " in dict(promise_rows(asked))["promised false-alarm rate"]
    assert any(f" {words}" in sentence for sentence in guarantee_in_words(asked))
    assert percent(rate / 10) == tenth
