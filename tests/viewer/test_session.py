"""What the page is told is what the package says elsewhere, for every kind of run."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import asced_stores.reading.recorded
from asced_analysis import Thresholds, calibrate, run_features, step_statistics
from asced_analysis.detection.apply import detect
from asced_analysis.detection.external import read_labels, read_masks
from asced_analysis.realism import local_realism
from asced_analysis.realism.judges import choose_judge
from asced_analysis.realism.pictures import read_pictures
from asced_analysis.signals import fields
from asced_analysis.statistics.outliers import rank_runs
from asced_analysis.viewer import Session, open_session
from asced_analysis.viewer.frames import strips
from asced_analysis.viewer.reading import Trajectories, picture
from asced_analysis.viewer.scores import RunScores
from asced_analysis.viewer.scoring import ScoreFile, Scores, by_features
from asced_stores import open_runs
from asced_stores.copying.selecting import parse_runs
from asced_stores.errors import AscedError, InputError
from asced_stores.testing import synthetic_store

RUNS, STEPS, SIDE = 96, 25, 16  # of the store that is looked at


def packed(mask: Any) -> str:
    return base64.b64encode(np.asarray(mask, np.uint8).tobytes()).decode()


def saved(answer: Any) -> bytes:
    content: bytes = answer.arrays["content"].tobytes()
    return content


@pytest.fixture
def session(runs: xr.Dataset, thresholds: Thresholds, corrected: xr.Dataset) -> Iterator[Session]:
    opened = open_session(runs, thresholds=thresholds, replay=corrected, keep_scores=False)
    yield opened
    opened.close()


@pytest.fixture
def plain(runs: xr.Dataset) -> Iterator[Session]:
    opened = open_session(runs, keep_scores=False)
    yield opened
    opened.close()


def test_pictures_of_a_step_are_the_fields(session: Session, runs: xr.Dataset) -> None:
    row, step = 7, 5
    found = {s.kind: s for s in strips(session.runs, row, 4, 7, signal="innovation")}
    assert list(found) == ["sample", "predicted_x0", "weighted_score", "dynamics"]
    one = runs.isel(run=[row]).load()
    expected = {
        "sample": fields.sample(one).sel(step=step),
        "predicted_x0": one["x0"].sel(step=step),
        "weighted_score": fields.signal(one).sel(step=step),
        "dynamics": abs(fields.dynamics(one, "innovation")).sel(step=step),
    }
    for kind, field in expected.items():
        strip = found[kind]
        low, high = strip.low[1], strip.high[1]
        assert low is not None
        assert high is not None
        shown = low + strip.images[1][..., 0] / 255 * (high - low)
        values = np.clip(field.values.squeeze().astype(float), low, high)
        assert np.abs(shown - values).max() <= 0.51 * (high - low) / 255, kind


def test_the_first_step_has_no_dynamics(session: Session) -> None:
    answer = session.answer("frames", {"row": 0, "first": 0, "signal": "weighted_score"})
    assert answer.header["scales"]["dynamics"]["low"][:2] == [None, 0.0]
    assert answer.arrays["dynamics"].shape == (STEPS, SIDE, SIDE, 1)
    json.loads(json.dumps(answer.described(), allow_nan=False))


def test_scores_flags_and_masks_are_those_of_detect(
    session: Session, runs: xr.Dataset, thresholds: Thresholds
) -> None:
    assert session.background.wait()
    expected = detect(runs, thresholds).compute()
    answer = session.answer("scores", {"done": -1})
    np.testing.assert_array_equal(answer.arrays["score"], expected["score"].astype(np.float32))
    level = answer.header["level"]
    rates = session.answer("rate", {"level": level}).header
    assert rates["all"]["flagged"] == int(expected["flagged"].sum()) > 0
    row = int(np.argmax(expected["score"].values))
    mask = session.answer("mask", {"row": row, "level": level}).arrays["mask"]
    np.testing.assert_array_equal(mask, expected["mask"].values[row])
    lower = session.answer("mask", {"row": row, "level": level - 1}).arrays["mask"]
    assert lower.sum() > mask.sum() > 0
    assert "score" not in session.answer("scores", {"done": RUNS}).arrays


def test_runs_are_called_scored_once_their_scores_are_there(
    looked_at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, asked = Scores(RUNS, "features"), []

    def ranked(features: Any) -> Any:
        asked.append((scores.done, len(features)))
        return rank_runs(features)

    monkeypatch.setattr("asced_analysis.statistics.outliers.rank_runs", ranked)
    for _ in by_features(open_runs(looked_at), scores):
        assert not scores.complete or np.isfinite(scores.values).all()
    assert asked
    assert all(done < known for done, known in asked)
    assert scores.complete


def test_a_replay_of_given_masks_has_no_scores_and_features_take_their_place(
    plain: Session,
) -> None:
    for score, source in ((np.nan, "features"), (0.5, "replay")):
        replayed = xr.Dataset({"score": ("run", np.full(RUNS, score))})
        assert RunScores(plain.runs, None, replayed).known.source == source


def test_without_thresholds_runs_are_ranked_by_their_features(
    plain: Session, runs: xr.Dataset
) -> None:
    assert plain.background.wait()
    table = rank_runs(run_features(runs))
    score = plain.answer("scores", {"done": -1}).arrays["score"]
    order = runs["run"].values[np.argsort(-score, kind="stable")]
    np.testing.assert_array_equal(order[:10], table.index[:10])
    reason = dict(plain.answer("run", {"row": int(order[0])}).header["details"])["most unusual"]
    assert str(table["reason"].iloc[0]).replace("_", " ") in reason
    assert plain.answer("about", {}).header["thresholds"] is None
    assert not plain.answer("mask", {"row": 0, "level": 0}).arrays


def test_bands_are_those_of_the_whole_population(plain: Session, runs: xr.Dataset) -> None:
    plain.answer("bands", {"signal": "innovation"})
    assert plain.background.wait()
    for signal in ("weighted_score", "innovation"):
        found = plain.answer("bands", {"signal": signal}).header
        expected = step_statistics(runs, signal=signal)
        assert found["bands"]["runs"] == RUNS
        np.testing.assert_allclose(found["bands"]["median"], expected["median"])
        np.testing.assert_allclose(found["bands"]["quantile"], expected["quantile"])
    phases = plain.population.phases
    assert phases is not None
    for name, boundary in zip(("mutation", "refinement"), phases.population, strict=True):
        place = found["phases"][name]
        assert (place is None) == (boundary.step != boundary.step)
        assert place is None or place == boundary.step
    assert 0 < found["phases"]["mutation"] < STEPS


def test_a_region_is_followed_over_the_steps(session: Session, runs: xr.Dataset) -> None:
    region = np.zeros((SIDE, SIDE), bool)
    region[3:6, 2:9] = True
    given = {"row": 11, "signal": "weighted_score", "region": packed(region)}
    answer = session.answer("curve", given).header
    change = abs(fields.dynamics(runs.isel(run=[11]), "weighted_score")).values[0, :, 0]
    assert answer["step"] == list(range(1, STEPS))
    np.testing.assert_allclose(answer["value"], change[:, region].mean(axis=1), rtol=1e-6)


def test_rates_of_runs_labelled_by_hand(session: Session) -> None:
    assert session.background.wait()
    score = session.scores.known.values
    order = np.argsort(-score)
    for row in order[:4]:
        session.answer("label", {"row": int(row), "broken": bool(row != order[0])})
    session.answer("label", {"row": int(order[-1]), "broken": False})
    rates = session.answer("rate", {"level": float(score[order[5]])}).header
    assert rates["normal"] == {
        "runs": 2,
        "flagged": 1,
        "rate": 0.5,
        "interval": pytest.approx([0.0126, 0.9874], abs=1e-4),
    }
    assert (rates["broken"]["runs"], rates["broken"]["flagged"]) == (3, 3)


def test_labels_and_masks_by_hand_are_read_by_calibration_and_replay(
    session: Session, tmp_path: Any
) -> None:
    with pytest.raises(InputError, match="no run is labelled"):
        session.answer("export", {"what": "labels"})
    mask = np.zeros((SIDE, SIDE), bool)
    mask[4:8, 5:9] = True
    session.answer("edit", {"row": 20, "mask": packed(mask)})
    told = session.answer("label", {"row": 3, "broken": False}).header
    assert told == {"labels": {"20": True, "3": False}, "masks": [20]}
    (tmp_path / "labels.csv").write_bytes(saved(session.answer("export", {"what": "labels"})))
    assert read_labels(tmp_path / "labels.csv") == {3: False, 20: True}
    (tmp_path / "masks.npz").write_bytes(saved(session.answer("export", {"what": "masks"})))
    found = read_masks(tmp_path / "masks.npz")
    assert list(found) == [20]
    np.testing.assert_array_equal(found[20], mask)
    folder = tmp_path / "folder"
    folder.mkdir()
    one = session.answer("export", {"what": "mask", "row": 20})
    (folder / one.header["file"]).write_bytes(saved(one))
    np.testing.assert_array_equal(read_masks(folder)[20], mask)
    session.answer("edit", {"row": 20, "mask": None})
    assert session.answer("label", {"row": 3, "broken": None}).header == {
        "labels": {"20": True},
        "masks": [],
    }


def test_the_selection_is_a_table_and_a_list_for_select(session: Session) -> None:
    assert session.background.wait()
    given = {"rows": [9, 1, 2, 3], "level": 0.0}
    lines = saved(session.answer("export", {"what": "selection", **given})).decode().splitlines()
    assert lines[0] == "run,seed,label,score,flagged,by_hand"
    assert lines[1].startswith("9,509,0,")
    assert "script" not in "".join(lines)
    text = saved(session.answer("export", {"what": "numbers", **given})).decode()
    assert parse_runs(text.strip()).tolist() == [1, 2, 3, 9]


@pytest.mark.parametrize(
    ("what", "form", "magic"),
    [("film", "png", b"\x89PNG"), ("dynamics", "svg", b"<?xml"), ("paired_runs", "pdf", b"%PDF")],
)
def test_figures_are_files_of_their_form(
    session: Session, what: str, form: str, magic: bytes
) -> None:
    assert session.background.wait()
    region = np.zeros((SIDE, SIDE), bool)
    region[2:5, 2:5] = True
    given = {"what": what, "form": form, "row": 3, "region": packed(region), "name": "here"}
    answer = session.answer("export", {**given, "signal": "weighted_score"})
    assert answer.header["file"] == f"runs-run3-{what}.{form}"
    assert saved(answer).startswith(magic)


def test_corrected_versions_come_with_mask_and_change(session: Session) -> None:
    answer = session.answer("run", {"row": 3})
    assert (answer.arrays["image"] != answer.arrays["corrected"]).any()
    assert answer.arrays["corrected_mask"].sum() == SIDE**2 // 4
    assert ("replay", "corrected") in answer.header["details"]
    change = session.answer("table", {}).arrays["change"]
    assert change[3] == 0.03
    assert change[4] == 0


def test_a_replay_alone_brings_its_scores(runs: xr.Dataset, corrected: xr.Dataset) -> None:
    session = Session(runs, corrected=corrected, keep_scores=False)
    assert session.background.wait()
    answer = session.answer("scores", {"done": -1})
    np.testing.assert_allclose(answer.arrays["score"], np.linspace(0, 1, RUNS), rtol=1e-6)
    session.close()


def test_scores_of_other_runs_are_never_taken(tmp_path: Any) -> None:
    """Another recording under the same name, other pixels, other numbers: other files."""
    path = tmp_path / "own.zarr"
    synthetic_store(path, runs=8, batch_size=4)
    runs = open_runs(path)
    files = {ScoreFile(open_runs(path), {}).paths[0], ScoreFile(runs, {}).paths[0]}
    assert len(files) == 1
    synthetic_store(tmp_path / "again.zarr", runs=8, batch_size=4)
    shutil.rmtree(path)
    (tmp_path / "again.zarr").rename(path)
    files.add(ScoreFile(open_runs(path), {}).paths[0])
    files.add(ScoreFile(runs.isel(x=slice(2, 10)), {}).paths[0])
    files.add(ScoreFile(runs.assign(x0=runs["x0"] * 2), {}).paths[0])
    files.add(ScoreFile(runs.isel(run=slice(0, 4)), {}).paths[0])
    loaded = runs.load()
    files.add(ScoreFile(loaded, {}).paths[0])
    loaded["x0"][0, 0, 0, 0, 0] += 1
    files.add(ScoreFile(loaded, {}).paths[0])
    assert len(files) == 7


def test_scores_are_kept_beside_the_store_and_taken_again(
    runs: xr.Dataset, thresholds: Thresholds, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    store = tmp_path / "runs.zarr"
    store.mkdir()
    runs = runs.copy()
    runs.encoding["source"] = str(store)
    first = open_session(runs, thresholds=thresholds)
    assert first.background.wait()
    first.close()
    assert not list(store.iterdir())
    kept = list((tmp_path / "runs.zarr.scores").iterdir())
    assert len(kept) == 1
    reads = spied(monkeypatch)
    second = Session(runs, thresholds=thresholds)
    assert second.background.wait()
    np.testing.assert_array_equal(second.scores.known.values, first.scores.known.values)
    assert not [name for name, _ in reads if name == "x0"]
    second.close()
    with np.load(kept[0]) as content:
        other = {name: content[name] for name in content.files} | {"run": np.arange(3)}
    np.savez(kept[0], **other)  # of other runs: not believed
    third = Session(runs, thresholds=thresholds)
    assert third.background.wait()
    np.testing.assert_array_equal(third.scores.known.values, first.scores.known.values)
    third.close()


def test_scores_of_other_groups_are_never_taken(
    looked_at: Path, runs: xr.Dataset, tmp_path: Path
) -> None:
    """Scores are shown against a run's own level, which its label chooses."""
    grouped = calibrate(looked_at, groups="label", false_alarm_rate=0.3)
    assert len(set(grouped.groups.values())) == 3
    runs = runs.copy()
    runs.encoding["source"] = str(tmp_path / "runs.zarr")
    relabelled = runs.assign_coords(label=(runs["label"] + 1) % 3)
    relabelled.encoding["source"] = runs.encoding["source"]
    found = []
    for ds, keep in ((runs, True), (relabelled, True), (relabelled, False)):
        session = Session(ds, thresholds=grouped, keep_scores=keep)
        assert session.background.wait()
        found.append(session.scores.known.values)
        session.close()
    np.testing.assert_array_equal(found[1], found[2])
    assert not np.array_equal(found[0], found[1])


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which variable was read of how many runs, by the real reader."""
    real = asced_stores.reading.recorded.read_rows
    reads: list[tuple[str, int]] = []

    def read(place: Any, layout: Any, batches: Any, slots: Any, *more: Any, **options: Any) -> Any:
        reads.append((layout.variable.name, len(slots)))
        return real(place, layout, batches, slots, *more, **options)

    monkeypatch.setattr(asced_stores.reading.recorded, "read_rows", read)
    return reads


def test_only_what_is_shown_is_read(plain: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plain.background.wait()
    reads = spied(monkeypatch)
    plain.answer("gallery", {"rows": [1, 40, 41, 90]})
    assert {name for name, _ in reads} == {"image"}
    assert sum(count for _, count in reads) == 4
    reads.clear()
    plain.answer("frames", {"row": 50, "first": 0, "signal": "innovation"})
    assert sorted(reads) == [("eps", 1), ("x0", 1)]
    reads.clear()
    plain.answer("frames", {"row": 50, "first": 6, "signal": "weighted_score"})
    plain.answer("gallery", {"rows": [41, 90]})
    assert not reads


@pytest.mark.parametrize("kept", [["eps", "x0"], ["eps", "x0", "sample"]])
def test_runs_without_images_show_the_ends_of_those_asked_for(
    runs: xr.Dataset, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = runs[kept]
    ends = (ds["sample"] if "sample" in kept else ds["x0"].isel(step=-1)).values
    rows = [41, 2, 3, 41, 0]
    reads = spied(monkeypatch)
    found = Trajectories(ds).thumbnails(rows, 96)
    assert sorted(reads) == [(kept[-1], 1), (kept[-1], 1), (kept[-1], 2)]
    for row, image in zip(rows, found, strict=True):
        np.testing.assert_array_equal(image, picture(ends[row], None))


def test_runs_that_a_cluster_holds_are_shown(runs: xr.Dataset) -> None:
    from distributed import Client

    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"):
        held = runs.isel(run=slice(0, 8)).persist()
        for fields in (["eps", "x0"], ["eps", "x0", "sample"], list(runs)):
            own = Trajectories(held[fields])
            plain = Trajectories(runs[fields])
            for found, image in zip(
                own.thumbnails([3, 5, 6], 32), plain.thumbnails([3, 5, 6], 32), strict=True
            ):
                np.testing.assert_array_equal(found, image)
            xr.testing.assert_allclose(own.whole(5), plain.whole(5))


def test_one_picture_reads_one_run() -> None:
    """Of a file that is not in chunks as well."""
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(20, 1, 16, 16)).astype(np.float32)
    read: list[Any] = []

    class Watched(xr.backends.BackendArray):
        shape, dtype = ends.shape, ends.dtype

        def __getitem__(self, key: Any) -> Any:
            read.append(ends[key.tuple].shape)
            return ends[key.tuple]

    lazy = xr.Variable(("run", "channel", "y", "x"), xr.core.indexing.LazilyIndexedArray(Watched()))
    steps = np.zeros((20, 2, 1, 16, 16), np.float32)
    ds = xr.Dataset({"eps": (("run", "step", "channel", "y", "x"), steps), "sample": lazy})
    found = Trajectories(ds).thumbnails([3], 16)
    assert read == [(1, 1, 16, 16)]
    np.testing.assert_array_equal(found[0], picture(ends[3], None))


@pytest.mark.parametrize("kind", ["rgb", "latents", "video", "bare"])
def test_other_pipelines_show_something_sensible(
    other_runs: dict[str, xr.Dataset], kind: str
) -> None:
    ds = other_runs[kind]
    session = Session(ds, keep_scores=False)
    about = session.answer("about", {}).header
    frame = about["frames"] - 1
    given = {"row": 4, "first": 2, "frame": frame, "signal": about["signals"][0]}
    answer = session.answer("frames", given)
    colours = 1 if kind == "bare" else 3
    if kind == "bare":
        assert about["kinds"] == ["weighted_score", "dynamics"]
    else:
        x0 = answer.arrays["predicted_x0"]
        assert x0.shape[2:] == (about["width"], colours)
        assert x0.std() > 10
    assert answer.arrays["dynamics"][0].std() > 10
    small = session.answer("gallery", {"rows": [0, 5]}).arrays
    assert small["5"].std() > 10
    assert max(small["5"].shape[:2]) <= 96
    region = packed(np.ones((about["height"], about["width"])))
    curve = session.answer("curve", {**given, "region": region}).header["value"]
    assert len(curve) == 4
    change = abs(fields.dynamics(ds.isel(run=[4]), about["signals"][0]))
    if "frame" in change.dims:
        change = change.isel(frame=frame)
    np.testing.assert_allclose(curve, change.mean(("channel", "y", "x")).values[0], rtol=1e-5)
    session.close()


def test_latents_without_pictures_show_their_corrected_version(
    other_runs: dict[str, xr.Dataset],
) -> None:
    """A model that has no decoder: in the false colours of the run's own end."""
    ds = other_runs["latents"].drop_vars("image")
    flagged = ("run", ds["run"].values == 4)
    corrected = ds[["sample"]].compute().assign(flagged=flagged)
    corrected["sample"][4, :, :8] *= -1
    session = Session(ds, corrected=corrected, keep_scores=False)
    shown = session.answer("run", {"row": 4}).arrays
    differs = (shown["image"] != shown["corrected"]).any(-1)
    assert differs[:8].mean() > 0.9
    assert not differs[8:].any()
    assert "corrected" not in session.answer("run", {"row": 3}).arrays
    session.close()


def test_a_large_run_is_read_by_the_steps_that_are_shown(
    other_runs: dict[str, xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(other_runs["rgb"], keep_scores=False)
    monkeypatch.setattr("asced_analysis.viewer.reading.WHOLE_RUN", 2**20)
    whole = session.runs.part(1, 0, 5)
    part = session.runs.part(1, 3, 4)
    assert part.sizes["step"] == 2
    np.testing.assert_array_equal(part["eps"].values, whole["eps"].values[:, 2:4])
    session.close()


@pytest.mark.parametrize(
    ("asked", "given", "said"),
    [
        ("nothing", {}, "no request"),
        ("run", {"row": 96}, "no run at position 96"),
        ("run", {}, "makes no sense"),
        ("gallery", {"rows": "x"}, "makes no sense"),
        ("frames", {"row": 0, "first": 0, "signal": "eps"}, "no signal"),
        ("frames", {"row": 0, "first": 0, "frame": 1, "signal": "innovation"}, "no frame"),
        ("curve", {"row": 0, "signal": "innovation", "region": "AAAA"}, "a mask of 3 pixels"),
        ("curve", {"row": 0, "signal": "innovation", "region": "?"}, "no base64"),
        ("export", {"what": "passwd", "row": 0}, "no export"),
        ("export", {"what": "film", "form": "exe", "row": 0}, "no figure format"),
        ("export", {"what": "selection", "rows": []}, "no run is selected"),
    ],
)
def test_senseless_requests_are_refused(
    plain: Session, asked: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(AscedError, match=said):
        plain.answer(asked, given)


def test_runs_without_trajectory_are_refused(runs: xr.Dataset) -> None:
    with pytest.raises(InputError, match="nothing to step through"):
        Session(runs[["image"]])
    with pytest.raises(InputError, match="no complete run"):
        Session(runs.isel(run=slice(0, 0)))


def test_runs_without_phases_are_still_shown(runs: xr.Dataset) -> None:
    short = Session(runs.isel(step=slice(0, 3)), keep_scores=False)
    assert short.background.wait()
    answer = short.answer("scores", {"done": -1}).header
    assert answer["phases"] is None
    assert any("expected at least" in error for error in answer["errors"])
    short.close()


def test_distance_to_real_images_is_the_judges(
    runs: xr.Dataset, corrected: xr.Dataset, tmp_path: Path
) -> None:
    real = np.random.default_rng(0).uniform(-1, 1, (20, SIDE, SIDE)).astype(np.float32)
    with pytest.raises(InputError, match="no image in"):
        open_session(runs, real=tmp_path, keep_scores=False)
    session = open_session(runs, replay=corrected, real=real, keep_scores=False)
    try:
        assert session.background.wait()
        about = session.answer("about", {}).header
        assert about["distance"] == "local distance to real images"
        assert (
            about["judge"] == "patches, the judge's half of the real images in an array, 10 images"
        )
        found = session.answer("scores", {})
        assert found.header["done"] == found.header["of"] == 3 * RUNS
        judge = choose_judge(None, runs, real=real)
        pictures = read_pictures(runs, np.arange(5))
        expected = local_realism(pictures, judge, runs=runs["run"].values[:5]).mean((1, 2))
        np.testing.assert_allclose(found.arrays["distance"][:5], expected, rtol=1e-5)
        told = dict(session.answer("run", {"row": 3}).header["details"])
        assert told["local distance to real images"] == f"{found.arrays['distance'][3]:.4g}"
        assert told["of its corrected version"] == told["local distance to real images"], (
            "their samples agree"
        )
    finally:
        session.close()
    population = open_session(runs, judge="patches", keep_scores=False)
    try:
        assert (
            population.answer("about", {}).header["distance"] == "local distance to the other runs"
        )
    finally:
        population.close()
