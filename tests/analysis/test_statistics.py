"""Population statistics against plain NumPy; merging; saving; clusters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import dask
import numba
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from asced_analysis.accessor import open_runs
from asced_analysis.calibration import calibrate
from asced_analysis.compute import streaming
from asced_analysis.counts.loops import widen
from asced_analysis.detection.apply import detect
from asced_analysis.detection.external import write_detections
from asced_analysis.signals.half_precision import by_bits, converts
from asced_analysis.statistics.by_step import (
    QUANTILES,
    counts_of,
    merge_statistics,
    statistics_graph,
    step_statistics,
)
from asced_analysis.statistics.saving import load, save
from asced_stores.errors import InputError


def plain(ds, signal, measure="dynamics"):
    """The same population with everything in memory: (step, value) in float64."""
    eps, x0 = ds["eps"].values.astype(np.float64), ds["x0"].values.astype(np.float64)
    kappa = (ds["sigma"] / ds["alpha"]).values[:, None, None, None]
    values = {"weighted_score": -kappa * eps, "predicted_x0": x0, "eps": eps, "x0": x0}
    if signal == "innovation":
        found = -kappa[1:] * np.diff(eps, axis=1)
    elif measure in ("dynamics", "difference"):
        found = np.diff(values[signal], axis=1)
    else:
        found = values[signal]
    if measure in ("dynamics", "magnitude"):
        found = np.abs(found)
    return np.moveaxis(found, 1, 0).reshape(found.shape[1], -1)


@pytest.mark.parametrize("signal", ["weighted_score", "predicted_x0", "innovation"])
def test_median_mad_and_quantiles_by_step_agree_with_numpy(runs, signal):
    found = step_statistics(runs, signal=signal, quantiles=QUANTILES)
    values = plain(runs, signal)
    median = np.median(values, axis=1)
    mad = np.median(np.abs(values - median[:, None]), axis=1)
    assert found["step"].values.tolist() == list(range(1, 10))
    np.testing.assert_allclose(found["median"], median, rtol=5e-4)
    np.testing.assert_allclose(found["mad"], mad, rtol=2e-3)
    np.testing.assert_allclose(found["mean"], values.mean(axis=1), rtol=5e-4)
    # near zero, rounding to float32 weighs more than the bins
    np.testing.assert_allclose(
        found["quantile"], np.quantile(values, QUANTILES, axis=1), rtol=6e-4, atol=1e-5
    )
    assert found["count"].values.tolist() == [values.shape[1]] * 9
    assert found["nan"].sum() == found["infinite"].sum() == 0


@pytest.mark.parametrize("signal", ["eps", "x0"])
@pytest.mark.parametrize("measure", ["magnitude", "value"])
def test_recorded_fp16_numbers_are_exact(runs, signal, measure):
    found = step_statistics(runs, signal=signal, measure=measure)
    values = plain(runs, signal, measure)
    assert found.attrs["relative_error"] == 0
    np.testing.assert_array_equal(found["median"], np.median(values, axis=1))
    mad = np.median(np.abs(values - np.median(values, axis=1)[:, None]), axis=1)
    np.testing.assert_array_equal(found["mad"], mad)
    expected = np.quantile(values, QUANTILES, axis=1)
    np.testing.assert_allclose(found["quantile"], expected, rtol=1e-12, atol=1e-15)


def test_signed_differences(runs):
    found = step_statistics(runs, measure="difference")
    expected = np.quantile(plain(runs, "weighted_score", "difference"), QUANTILES, axis=1)
    np.testing.assert_allclose(found["quantile"], expected, rtol=1e-3, atol=1e-4)


def test_failed_runs_are_counted_apart_when_they_are_asked_for(runs_path):
    everything = open_runs(runs_path, statuses=("complete", "failed"))
    found = step_statistics(everything)
    assert found["nan"].values.tolist() == [240] * 9
    complete = step_statistics(open_runs(runs_path))
    np.testing.assert_array_equal(found["median"], complete["median"])


@pytest.mark.parametrize("by", ["channel", "batch"])
def test_groups_are_the_statistics_of_their_parts(runs, by):
    found = step_statistics(runs, by=by)
    for name in found[by].values:
        if by == "channel":
            part = step_statistics(runs.isel(channel=[name]))
        else:
            part = step_statistics(runs.isel(run=np.flatnonzero(runs["batch"].values == name)))
        for variable in ("median", "mad", "quantile", "count"):
            chosen = found[variable].sel({by: name})
            np.testing.assert_array_equal(chosen, part[variable])


def test_prompts_and_labels_are_groups(runs):
    prompts = np.array(["a cat", "a dog"])[runs["run"].values % 2]
    labelled = runs.assign_coords(prompt=("run", prompts), label=("run", runs["run"].values % 3))
    assert step_statistics(labelled, by="prompt")["prompt"].values.tolist() == ["a cat", "a dog"]
    assert step_statistics(labelled, by="label").sizes["label"] == 3
    with pytest.raises(InputError, match="no groups by 'colour'"):
        step_statistics(labelled, by="colour")
    many = xr.concat([labelled] * 3, "run").assign_coords(label=("run", np.arange(87)))
    with pytest.raises(InputError, match="87 groups"):
        step_statistics(many, by="label")


@pytest.mark.parametrize("by", [None, "channel", "batch"])
def test_merging_parts_is_the_same_as_all_at_once(runs, by):
    parts = [
        step_statistics(runs.isel(run=part), by=by) for part in np.split(np.arange(29), [7, 8])
    ]
    merged = merge_statistics([parts[2], parts[0], parts[1]])
    whole = step_statistics(runs, by=by)
    for name in ("median", "mad", "quantile", "count"):
        np.testing.assert_array_equal(merged[name], whole[name])
    assert merged.attrs["runs"] == 29


@pytest.mark.parametrize("name", ["guidance_scale", "prompt", "label"])
def test_groups_of_parts_are_united_and_lose_nothing(runs, name):
    values = {
        "guidance_scale": np.where(np.arange(29) % 3, 7.5, np.nan),
        "prompt": np.array(["a boot", "a longer prompt"])[(np.arange(29) > 20).astype(int)],
        "label": np.arange(29) // 7,
    }[name]
    ds = runs.assign_coords({name: ("run", values)})
    parts = [step_statistics(ds.isel(run=part), by=name) for part in (slice(12), slice(12, None))]
    xr.testing.assert_identical(merge_statistics(parts), step_statistics(ds, by=name))
    unknown = ds.assign_coords({name: ("run", np.full(29, np.nan))})
    merged = merge_statistics([step_statistics(unknown, by=name)] * 2)
    assert merged["count"].sum() == 2 * step_statistics(runs)["count"].sum()


def test_saved_counts_take_more_runs_later(runs, tmp_path):
    save(step_statistics(runs.isel(run=slice(0, 11))), tmp_path / "first.zarr")
    first = load(tmp_path / "first.zarr")
    later = merge_statistics([first, step_statistics(runs.isel(run=slice(11, None)))], (0.3, 0.9))
    whole = step_statistics(runs, quantiles=(0.3, 0.9))
    np.testing.assert_array_equal(later["quantile"], whole["quantile"])
    # quantiles nobody asked for at the time
    np.testing.assert_array_equal(counts_of(first).quantile(0.5), first["median"])


def test_results_are_saved_by_type_and_never_overwritten_by_accident(runs, tmp_path):
    statistics = step_statistics(runs)
    frame = statistics["median"].to_dataframe().reset_index()[["step", "median"]]
    save(frame, tmp_path / "counts.parquet")
    pd.testing.assert_frame_equal(load(tmp_path / "counts.parquet"), frame)
    with pytest.raises(InputError, match="exists"):
        save(frame, tmp_path / "counts.parquet")
    save(frame.head(), tmp_path / "counts.parquet", overwrite=True)
    assert len(load(tmp_path / "counts.parquet")) == 5
    with pytest.raises(InputError, match=r"ends in \.zarr"):
        save(statistics, tmp_path / "statistics.csv")
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "nothing.zarr")
    assert not list(tmp_path.glob(".*partial*"))


def test_what_does_not_fit_does_not_merge(runs):
    one = step_statistics(runs)
    with pytest.raises(InputError, match="do not merge"):
        merge_statistics([one, step_statistics(runs, "predicted_x0")])
    with pytest.raises(InputError, match="different steps"):
        merge_statistics([one, step_statistics(runs.isel(step=slice(1, None)))])
    with pytest.raises(InputError, match="nothing to merge"):
        merge_statistics([])
    with pytest.raises(InputError, match="no complete runs"):
        step_statistics(runs.isel(run=slice(0, 0)))
    with pytest.raises(InputError, match="no measure"):
        step_statistics(runs, measure="speed")


def test_chunks_selections_and_memory_give_the_same_counts(runs):
    whole = step_statistics(runs)
    for other in (runs.compute(), runs.chunk(run=3), runs.chunk(step=4), runs.transpose("x", ...)):
        xr.testing.assert_identical(step_statistics(other), whole)


def test_many_steps_are_counted_in_windows():
    rng = np.random.default_rng(0)
    eps = rng.standard_normal((5, 70, 1, 6, 6)).astype(np.float16)
    levels = {"alpha": np.linspace(0.1, 0.99, 70)}
    levels["sigma"] = np.sqrt(1 - levels["alpha"] ** 2)
    ds = xr.Dataset(
        dict.fromkeys(("eps", "x0"), (("run", "step", "channel", "y", "x"), eps)),
        {"step": np.arange(70), **{name: ("step", values) for name, values in levels.items()}},
    )
    found = step_statistics(ds)
    np.testing.assert_allclose(
        found["median"], np.median(plain(ds, "weighted_score"), axis=1), rtol=5e-4
    )


def test_widening_is_right_for_every_fp16_number():
    every = np.arange(1 << 16, dtype=np.uint16)
    out = np.empty(every.size, np.float32)
    widen(every.view(np.int16), out)
    np.testing.assert_array_equal(out, every.view(np.float16).astype(np.float32))


def test_so_it_is_on_a_processor_without_an_instruction_for_it():
    every = np.arange(1 << 16, dtype=np.uint16)

    @numba.njit
    def widened(halves):
        return np.array([by_bits(half) for half in halves])

    found = widened(every.view(np.int16))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, every.view(np.float16).astype(np.float32))


def test_and_where_numba_compiles_nothing():
    program = "from asced_analysis.signals.half_precision import by_bits, to_float\n"
    program += "import numpy as np; assert to_float is by_bits; print(to_float(np.int16(0x3C00)))"
    surroundings = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=surroundings, capture_output=True, text=True
    )
    assert (found.stdout.strip(), found.stderr) == ("1.0", "")


@pytest.mark.parametrize(
    ("machine", "features", "expected"),
    [
        ("x86_64-unknown-linux-gnu", "+avx,+f16c,-avx512f", True),
        ("x86_64-unknown-linux-gnu", "+avx,-f16c", False),
        ("x86_64-unknown-linux-gnu", "", False),
        ("arm64-apple-darwin24.0.0", "+neon", True),
        ("powerpc64le-unknown-linux-gnu", "+vsx", False),
    ],
)
def test_an_instruction_is_used_where_there_is_one(machine, features, expected):
    assert converts(machine, features) is expected


def count_shards(blocks, folder):
    """Note each call, then count; fail the first time that a shard is seen, when asked to."""
    total = 0
    for block in blocks:
        name = folder / f"{int(block['number'][0])}"
        seen = len(list(folder.glob(f"{name.name}-*")))
        (folder / f"{name.name}-{seen}").touch()
        if seen == 0 and int(block["number"][0]) == 7:
            import os

            os._exit(1)  # the worker dies with its results, as if the machine were lost
        total += len(block["eps"])
    return total


@pytest.fixture
def interruptible():
    """Python's own handling of Ctrl-C, which pytest-xdist switches off in its workers."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def note_and_wait(blocks, folder, seconds):
    """Leave a file for each task that began, then take a while."""
    runs = sum(len(block["eps"]) for block in blocks)
    (folder / str(len(list(folder.iterdir())))).touch()
    time.sleep(seconds)
    return runs


def test_interrupting_cancels_what_has_not_begun(runs, tmp_path, interruptible):
    tasks = streaming.shard_tasks(
        runs.chunk(run=1), ["eps"], note_and_wait, task_bytes=1, folder=tmp_path, seconds=0.05
    )
    assert len(tasks) == 29
    timer = threading.Timer(
        0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)
    )
    with dask.config.set(scheduler="threads", num_workers=2):
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            streaming.compute(streaming.tree_merge(tasks, sum))
    time.sleep(0.2)  # those that had begun come to their end
    begun = len(list(tmp_path.iterdir()))
    assert 0 < begun < 29
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) == begun
    assert streaming.compute(streaming.tree_merge(tasks, sum)) == 29  # and again, from the start


def test_a_cluster_of_processes_gives_the_same_and_a_lost_worker_counts_once(
    runs, tmp_path, interruptible
):
    from distributed import Client, LocalCluster

    expected = step_statistics(runs)
    with (
        dask.config.set({"distributed.logging.distributed": "critical"}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs="CRITICAL",
        ) as cluster,
        Client(cluster),
    ):
        xr.testing.assert_identical(step_statistics(runs), expected)
        # what the workers hold already is read from them
        held = runs.persist()
        xr.testing.assert_identical(step_statistics(held), expected)
        few = step_statistics(runs.isel(run=slice(3, 20), step=slice(0, 6)))
        part = held.isel(run=slice(3, 20), step=slice(0, 6))
        xr.testing.assert_identical(step_statistics(part), few)
        options = {"false_alarm_rate": 0.3}
        thresholds = calibrate(held, **options)
        assert thresholds == calibrate(runs, **options)
        found = write_detections(detect(held, thresholds), None)
        assert found == write_detections(detect(runs, thresholds), None)
        tasks = streaming.shard_tasks(
            runs,
            ["eps"],
            count_shards,
            per_run={"number": np.arange(29)},
            task_bytes=1,
            folder=tmp_path,
        )
        assert streaming.compute(streaming.tree_merge(tasks, sum)) == 29
        assert len(list(tmp_path.glob("7-*"))) == 2  # died once, was counted again
        # with a bar, and a list of tasks instead of one
        assert sum(streaming.compute(tasks, progress=True)) == 29
        noted = tmp_path / "noted"
        noted.mkdir()
        waiting = streaming.shard_tasks(
            runs.chunk(run=1), ["eps"], note_and_wait, task_bytes=1, folder=noted, seconds=0.3
        )

        def interrupt_once_begun():
            while not any(noted.iterdir()):
                time.sleep(0.05)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        threading.Thread(target=interrupt_once_begun, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            streaming.compute(streaming.tree_merge(waiting, sum))
        time.sleep(1)
        begun = len(list(noted.iterdir()))
        assert 0 < begun < 29
        time.sleep(1)
        assert len(list(noted.iterdir())) == begun


def test_of_large_runs_few_are_read_at_a_time(runs, monkeypatch):
    """A shard of eight runs, of which two would be more than may lie in memory."""
    import asced_stores.reading.recorded as datasets
    from asced_analysis.statistics.features import run_features

    expected, table = step_statistics(runs), run_features(runs)
    read = []
    whole = datasets.LazyVariable.__getitem__

    def noted(self, key):
        found = whole(self, key)
        read.append(len(found))
        return found

    monkeypatch.setattr(datasets.LazyVariable, "__getitem__", noted)
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 1)
    xr.testing.assert_identical(step_statistics(runs), expected)
    assert run_features(runs).equals(table)
    assert set(read) == {1}


def test_work_that_fails_says_why(runs):
    def broken(blocks):
        raise InputError("this shard is odd")

    with pytest.raises(InputError, match="this shard is odd"):
        streaming.compute(streaming.shard_tasks(runs, ["eps"], broken))


def test_a_progress_bar_is_drawn_on_standard_error(runs, capsys):
    step_statistics(runs, progress=True)
    streams = capsys.readouterr()
    assert "Counting 29 runs" in streams.err
    assert "100% Completed" in streams.err
    assert not streams.out


def test_a_graph_is_one_task_a_shard_group_and_a_tree(runs):
    tasks = streaming.shard_tasks(runs, ["eps"], count_shards, folder=None)
    assert len(tasks) == 4  # four batches, each too large for an eighth of the runs
    assert len(streaming.shard_tasks(runs, ["eps"], count_shards, merged=True)) == 1
    merged = streaming.tree_merge(tasks * 5, sum)
    names = [str(key) for key in merged.__dask_graph__()]
    assert len([name for name in names if name.startswith("sum")]) == 4  # 20 by eights: 3, then 1


def test_tasks_suit_the_threads_that_are_there_or_asked_for(monkeypatch):
    mib = 2**20
    assert streaming.merged_task_bytes(8 * mib, 2) == 16 * mib
    assert streaming.merged_task_bytes(512 * mib, 2) == 64 * mib
    assert streaming.merged_task_bytes(512 * mib, 32) == 16 * mib
    assert streaming.merged_task_bytes(64 * 1024 * mib, 2) == 1024 * mib
    client = SimpleNamespace(
        asynchronous=False, nthreads=lambda: {"one": 4}, cluster=SimpleNamespace(plan={0, 1, 2})
    )
    monkeypatch.setattr(streaming, "_active_client", lambda: client)
    assert streaming._threads() == 12  # two more workers were asked for
    client.nthreads, client.cluster = dict, None
    assert streaming._threads() == streaming._UNKNOWN_THREADS


def test_what_two_parts_of_a_graph_share_is_computed_once(runs):
    calls = []

    def noted(block):
        calls.append(len(block))
        return block

    eps = runs["eps"].copy(data=runs["eps"].data.map_blocks(noted, meta=runs["eps"].data._meta))
    ds = runs.assign(eps=eps + eps.transpose(*eps.dims) * 2)
    tasks = streaming.shard_tasks(ds, ["eps"], lambda blocks: [len(b["eps"]) for b in blocks])
    with dask.config.set(scheduler="synchronous"):
        found = streaming.compute(tasks)
    assert sum(map(sum, found)) == sum(calls) == 29


def test_a_few_small_shards_are_counted_in_one_task(runs):
    names = [str(key) for key in statistics_graph(runs)[0].__dask_graph__()]
    assert len([name for name in names if name.startswith("call_work")]) == 1
