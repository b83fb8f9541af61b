"""``record``: what lies in the store, and that it can be repeated bit for bit."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_pipelines import dit

from asced_recorders import load_pipeline, record
from asced_recorders.pipelines.sampling import initial_noise, run_generators, sample_unconditional
from asced_recorders.tap.schedulers import step_table
from asced_recorders.writing.session import Session
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError, NotATrajectoryStoreError, StoreExistsError


def rebuilt(ds: Any) -> Any:
    """``alpha * x0 + sigma * eps`` at every step."""
    x = ds["alpha"] * ds["x0"].astype("f4") + ds["sigma"] * ds["eps"].astype("f4")
    return x.transpose("run", "step", ...)


def test_everything_of_the_design_is_recorded(tiny_runs: Path) -> None:
    ds = open_runs(tiny_runs)
    assert {n: ds.sizes[n] for n in ("run", "step", "channel", "y", "x")} == {
        "run": 20,
        "step": 10,
        "channel": 1,
        "y": 16,
        "x": 16,
    }
    assert ds.sizes["checkpoint"] == 2
    assert {
        n: str(ds[n].dtype) for n in ("eps", "x0", "x_init", "checkpoint_sample", "sample", "image")
    } == {
        "eps": "float16",
        "x0": "float16",
        "x_init": "float32",
        "checkpoint_sample": "float32",
        "sample": "float32",
        "image": "uint8",
    }
    assert ds["seed"].values.tolist() == list(range(7, 27))
    assert ds["batch"].values.tolist() == [0] * 8 + [1] * 8 + [2] * 4
    assert set(ds["status"].values.tolist()) == {1}
    assert ds["checkpoint"].values.tolist() == [3, 6]
    attributes = ds.attrs
    assert attributes["scheduler_class"] == "DDIMScheduler"
    assert attributes["scheduler_config"]["timestep_spacing"] == "trailing"
    assert attributes["prediction_type"] == "v_prediction"
    assert attributes["model_fingerprint"].startswith("sha256:")
    assert attributes["versions"]["torch"] == torch.__version__
    assert attributes["device"] == "cpu"
    assert attributes["threads"] == torch.get_num_threads()
    assert attributes["steps"] == 10
    assert attributes["seed"] == 7
    assert "/" not in attributes["pipeline"]


def test_eps_and_x0_rebuild_the_sample_that_entered_each_step(tiny_runs: Path) -> None:
    ds = open_runs(tiny_runs)
    x = rebuilt(ds)
    np.testing.assert_allclose(x[:, 0], ds["x_init"], atol=6e-3)
    for i, step in enumerate(ds["checkpoint"].values):
        np.testing.assert_allclose(x[:, step], ds["checkpoint_sample"][:, i], atol=6e-3)
    # DDIM steps from the last level to the predicted x0 itself.
    np.testing.assert_allclose(ds["x0"][:, -1], ds["sample"], atol=6e-3)


def test_image_is_what_the_sample_looks_like(tiny_runs: Path) -> None:
    ds = open_runs(tiny_runs)
    low, high = ds.attrs["value_range"]  # of random weights, which end outside -1..1
    assert low < -1
    assert high > 1
    expected = (((ds["sample"].values - low) / (high - low)).clip(0, 1) * 255).round()
    np.testing.assert_allclose(ds["image"].values, expected.transpose(0, 2, 3, 1), atol=1)


def test_the_same_batch_replayed_from_its_start_is_bit_identical(
    tiny_runs: Path, tiny_pipeline: Any
) -> None:
    ds = open_runs(tiny_runs)
    for batch in range(3):
        rows = ds.isel(run=ds["batch"].values == batch)
        x_init = torch.from_numpy(rows["x_init"].values)
        again = sample_unconditional(tiny_pipeline, x_init=x_init, steps=10)
        assert np.array_equal(again.numpy(), rows["sample"].values)
        x = torch.from_numpy(rows["checkpoint_sample"].values[:, 1])
        late = sample_unconditional(tiny_pipeline, x_init=None, steps=10, start=6, x_start=x)
        assert np.array_equal(late.numpy(), rows["sample"].values)


def test_the_seed_gives_the_start_again(tiny_runs: Path, tiny_pipeline: Any) -> None:
    ds = open_runs(tiny_runs)
    tiny_pipeline.scheduler.set_timesteps(10)
    noise = initial_noise(tiny_pipeline, [int(s) for s in ds["seed"].values])
    assert np.array_equal(noise.numpy(), ds["x_init"].values)


def test_levels_are_the_schedulers(tiny_runs: Path, tiny_pipeline: Any) -> None:
    ds = open_runs(tiny_runs)
    tiny_pipeline.scheduler.set_timesteps(10)
    table = step_table(tiny_pipeline.scheduler)
    for name in ("timestep", "alpha", "sigma", "log_snr"):
        np.testing.assert_allclose(ds[name].values, getattr(table, name), rtol=1e-12)


@pytest.mark.parametrize(
    "scheduler", ["ddpm", "euler", "euler-a", "heun", "kdpm2", "dpm++", "unipc", "lms", "pndm"]
)
def test_any_scheduler_fits_and_is_repeatable(
    scheduler: str, tiny_pipeline: Any, tmp_path: Path
) -> None:
    kept = type(tiny_pipeline.scheduler)
    options: dict[str, Any] = {"runs": 3, "steps": 6, "batch_size": 2, "scheduler": scheduler}
    stores = [record(tiny_pipeline, tmp_path / f"{i}.zarr", **options) for i in range(2)]
    one, two = (open_runs(store.path) for store in stores)
    assert one.sizes["step"] == 6
    for name in ("eps", "x0", "x_init", "sample"):
        np.testing.assert_array_equal(one[name].values, two[name].values)
    x = rebuilt(one)
    scale = float(np.abs(one["x_init"]).max())
    np.testing.assert_allclose(x[:, 0], one["x_init"], atol=3e-3 * scale)
    assert type(tiny_pipeline.scheduler) is kept


def test_ancestral_noise_of_a_run_goes_on_from_its_own_seed(
    tiny_pipeline: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"steps": 6, "scheduler": "euler-a"}
    record(tiny_pipeline, tmp_path / "a.zarr", runs=4, batch_size=4, seed=0, **options)
    record(tiny_pipeline, tmp_path / "b.zarr", runs=2, batch_size=2, seed=2, **options)
    whole = open_runs(tmp_path / "a.zarr")["sample"].values[2:]
    np.testing.assert_allclose(whole, open_runs(tmp_path / "b.zarr")["sample"].values, atol=1e-3)


def test_a_stochastic_batch_is_replayed_bit_for_bit(tiny_pipeline: Any, tmp_path: Path) -> None:
    from asced_recorders.pipelines.scheduler_names import make_scheduler

    record(tiny_pipeline, tmp_path / "a.zarr", runs=3, steps=6, batch_size=3, scheduler="ddpm")
    ds = open_runs(tmp_path / "a.zarr")
    pipe = type(tiny_pipeline)(tiny_pipeline.unet, tiny_pipeline.scheduler)
    pipe.scheduler = make_scheduler("ddpm", tiny_pipeline.scheduler)
    pipe.scheduler.set_timesteps(6)
    generators = run_generators([0, 1, 2])
    initial_noise(pipe, generators)  # the start is drawn first, then the noise of the steps
    again = sample_unconditional(
        pipe, x_init=torch.from_numpy(ds["x_init"].values), steps=6, generators=generators
    )
    assert np.array_equal(again.numpy(), ds["sample"].values)


def test_recording_changes_no_sample(tiny_runs: Path, tiny_pipeline: Any) -> None:
    rows = open_runs(tiny_runs).isel(run=slice(0, 8))
    plain = sample_unconditional(
        tiny_pipeline, x_init=torch.from_numpy(rows["x_init"].values), steps=10
    )
    assert np.array_equal(plain.numpy(), rows["sample"].values)


def test_fields_dtype_and_checkpoints_are_chosen(tiny_pipeline: Any, tmp_path: Path) -> None:
    path = tmp_path / "some.zarr"
    record(
        tiny_pipeline, path, runs=2, steps=4, batch_size=2, fields=("eps", "x0"), dtype="float32"
    )
    ds = open_runs(path)
    assert set(ds.data_vars) == {"eps", "x0"}
    assert ds["eps"].dtype == np.float32


def test_a_resumed_store_equals_one_made_at_once(
    tiny_pipeline: Any, tiny_runs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "again.zarr"
    shutil.copytree(tiny_runs, path)
    whole = open_runs(tiny_runs)
    (path / "commits" / "1.json").unlink()
    events: list[dict[str, Any]] = []
    settings: dict[str, Any] = {"steps": 10, "batch_size": 8, "seed": 7, "checkpoints": (3, 6)}
    record(tiny_pipeline, path, runs=20, resume=True, progress=events.append, **settings)
    again = open_runs(path)
    for name in ("eps", "x0", "x_init", "checkpoint_sample", "sample", "image"):
        np.testing.assert_array_equal(again[name].values, whole[name].values)
    assert [e["batch"] for e in events if e["event"] == "batch"] == [1]
    with pytest.raises(InputError, match=r"other settings \(steps 10, now 9"):
        record(tiny_pipeline, path, runs=20, resume=True, **{**settings, "steps": 9})
    with pytest.raises(InputError, match=r"batch size 8, now 4"):
        record(tiny_pipeline, path, runs=20, resume=True, **{**settings, "batch_size": 4})


def test_two_processes_share_the_batches(
    tiny_pipeline: Any, tiny_runs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "two.zarr"
    settings: dict[str, Any] = {"steps": 10, "batch_size": 8, "seed": 7, "checkpoints": (3, 6)}
    record(tiny_pipeline, path, runs=20, rank=0, world_size=2, **settings)
    assert TrajectoryStore.open(path).committed_batches() == [0, 2]
    record(tiny_pipeline, path, runs=20, rank=1, world_size=2, resume=True, **settings)
    whole, parts = open_runs(tiny_runs), open_runs(path)
    assert parts["rank"].values.tolist() == [0] * 8 + [1] * 8 + [0] * 4
    np.testing.assert_array_equal(parts["sample"].values, whole["sample"].values)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_process_without_a_batch_waits_for_the_store(
    conditional: bool, make_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two starts first: of 4 runs in batches of 8 nothing is left to it."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one launch")
    path = tmp_path / "runs.zarr"
    events: list[dict[str, Any]] = []
    waiting = threading.Event()
    wait = Session._wait_for_store

    def waited(session: Session) -> TrajectoryStore:
        waiting.set()
        return wait(session)

    monkeypatch.setattr(Session, "_wait_for_store", waited)

    def one(rank: int, tell: Any = None) -> TrajectoryStore:
        pipe = dit() if conditional else make_tiny("DDIM", 1)
        settings: dict[str, Any] = {"runs": 4, "steps": 3, "batch_size": 8, "seed": 7}
        if conditional:
            settings["labels"] = [1] * 4
        return record(pipe, path, rank=rank, world_size=2, progress=tell, **settings)

    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(one, 1, events.append)
        assert waiting.wait(60)
        assert not path.exists()
        first = one(0)
        assert second.result(60).spec.attributes == first.spec.attributes
    assert [event["event"] for event in events if event["event"] == "batch"] == []
    assert events[-1]["event"] == "done"
    assert events[-1]["done"] == 0
    assert open_runs(path)["rank"].values.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": 0}, "runs is 0"),
        ({"runs": None}, "runs is None"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1001}, "steps is 1001: .* 1000"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"checkpoints": range(5)}, "5 checkpoints are more than 4 steps"),
        ({"checkpoints": (4,)}, r"checkpoints \[4\] lie beyond"),
        ({"checkpoints": (-1,)}, "negative"),
        ({"fields": ("eps", "score")}, r"unknown fields \['score'\]"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"scheduler": "eulr"}, "did you mean euler"),
        ({"scheduler": "flow-euler"}, "flow matching"),
        ({"scheduler": "ddim", "scheduler_options": {"clip": 1}}, "no option clip"),
        ({"labels": [1]}, "no classes"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
        ({"scheduler": "RePaintScheduler"}, "back and forth"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_made(
    change: dict[str, Any], message: str, tiny_pipeline: Any, tmp_path: Path
) -> None:
    path = tmp_path / "bad.zarr"
    arguments = {"runs": 4, "steps": 4, "batch_size": 2, **change}
    with pytest.raises(InputError, match=message):
        record(tiny_pipeline, path, **arguments)
    assert not path.exists()
    assert not [t for t in threading.enumerate() if t.name == "asced-recorder"]


def test_a_store_that_exists_is_left_alone(tiny_pipeline: Any, tiny_runs: Path) -> None:
    with pytest.raises(StoreExistsError, match="--resume"):
        record(tiny_pipeline, tiny_runs, runs=4, steps=4, batch_size=2)


def test_a_disk_that_is_too_small_is_seen_first(tiny_pipeline: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"are free.*--ignore-disk"):
        record(tiny_pipeline, tmp_path / "big.zarr", runs=10**9, steps=25, batch_size=10**5)
    assert not (tmp_path / "big.zarr").exists()


def test_a_store_may_lie_in_memory(tiny_pipeline: Any) -> None:
    record(tiny_pipeline, "memory://recorded", runs=3, steps=2, batch_size=2)
    assert open_runs("memory://recorded").sizes["run"] == 3


def test_a_run_with_infinite_values_is_marked_as_failed(tiny_pipeline: Any, tmp_path: Path) -> None:
    import copy

    pipe = type(tiny_pipeline)(copy.deepcopy(tiny_pipeline.unet), tiny_pipeline.scheduler)
    with torch.no_grad():
        pipe.unet.conv_out.bias.fill_(float("nan"))
    record(pipe, tmp_path / "nan.zarr", runs=2, steps=3, batch_size=2)
    ds = open_runs(tmp_path / "nan.zarr", statuses=("complete", "failed"))
    assert ds["status"].values.tolist() == [2, 2]
    assert open_runs(tmp_path / "nan.zarr").sizes["run"] == 0


class TestLoading:
    def test_the_embedded_model_has_a_name(self) -> None:
        pipe = load_pipeline("fashion", device="cpu")
        assert type(pipe.unet).__name__ == "UNet2DModel"

    def test_a_folder_is_loaded_and_named_without_its_path(
        self, tiny_folder: Path, tmp_path: Path
    ) -> None:
        record(tiny_folder, tmp_path / "a.zarr", runs=1, steps=2, batch_size=1, device="cpu")
        assert open_runs(tmp_path / "a.zarr").attrs["pipeline"] == "tiny"
        assert str(tiny_folder.parent) not in (tmp_path / "a.zarr" / "zarr.json").read_text()

    def test_an_unknown_name_is_explained(self) -> None:
        with pytest.raises(InputError, match=r"unknown pipeline 'nope'.*fashion"):
            load_pipeline("nope")

    def test_a_folder_without_an_index_is_explained(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"without model_index\.json"):
            load_pipeline(tmp_path)

    def test_pickled_weights_are_refused_unless_allowed(
        self, tiny_pipeline: Any, tmp_path: Path
    ) -> None:
        tiny_pipeline.save_pretrained(tmp_path / "old", safe_serialization=False)
        with pytest.raises(InputError, match="--allow-pickle"):
            load_pipeline(tmp_path / "old")
        assert load_pipeline(tmp_path / "old", allow_pickle=True, device="cpu") is not None

    def test_the_fingerprint_follows_the_weights_and_not_the_folder(
        self, tiny_pipeline: Any, tiny_folder: Path
    ) -> None:
        import copy

        from asced_recorders.pipelines.fingerprint import model_fingerprint

        loaded = load_pipeline(tiny_folder, device="cpu")
        before = model_fingerprint(loaded)
        assert before == model_fingerprint(tiny_pipeline)
        changed = copy.deepcopy(loaded.unet)
        assert model_fingerprint(changed) == model_fingerprint(loaded.unet)
        with torch.no_grad():
            next(changed.parameters()).add_(1)
        assert model_fingerprint(changed) != model_fingerprint(loaded.unet)


def test_a_recording_killed_before_its_store_was_made_is_simply_begun_again(
    tiny_pipeline: Any, tmp_path: Path
) -> None:
    path = tmp_path / "runs.zarr"
    settings: dict[str, Any] = {"runs": 2, "steps": 3, "batch_size": 2}
    record(tiny_pipeline, path, **settings)
    shutil.rmtree(path / "eps" / "c")
    for name in ("zarr.json", "commits/0.json", "status/c/0"):
        (path / name).unlink()
    for name in ("x0", "x_init", "sample", "image"):
        shutil.rmtree(path / name)
    (path / "commits" / ".tmp").mkdir(exist_ok=True)
    (path / "commits" / ".tmp" / "replace-0").write_bytes(b"torn")
    store = record(tiny_pipeline, path, **settings)
    report = store.verify()
    assert (report.runs, list(report.leftovers), report.ok) == (2, [], True)
    (path / "zarr.json").unlink()
    (path / "notes.txt").write_text("mine")
    with pytest.raises(NotATrajectoryStoreError):
        record(tiny_pipeline, path, **settings)
