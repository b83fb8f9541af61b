"""Learning from outcomes: the map, its export beside the file, and the promise on top of it."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asced_analysis.calibration import calibrate
from asced_analysis.calibration.examples import gather
from asced_analysis.calibration.outcome import untrained_stream
from asced_analysis.calibration.outcome_training import (
    Examples,
    fit_run_model,
    halves_of,
    learn,
    train_map,
)
from asced_analysis.compute.source import open_source
from asced_analysis.correction import Corrector
from asced_analysis.correction.lookahead import pipeline_network
from asced_analysis.detection import outcome
from asced_analysis.detection.apply import detect
from asced_analysis.detection.outcome_network import (
    convolve,
    layout_size,
    layout_statistics,
    layout_terms,
    run_network,
)
from asced_analysis.detection.streaming import make_detector
from asced_analysis.export import export_program
from asced_analysis.realism import patch_model
from asced_analysis.thresholds.conformal import expected_band
from asced_analysis.thresholds.document import Thresholds, ThresholdsError
from asced_recorders import record
from asced_recorders.pipelines.sampling import initial_noise, run_generators, sample_unconditional
from asced_stores import open_runs
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outcome") / "runs.zarr"
    synthetic_store(path, runs=160, steps=12, shape=(1, 16, 16), batch_size=32)
    return path


@pytest.fixture(scope="module")
def thresholds(store: Path) -> Thresholds:
    return calibrate(
        store, method="outcome", teacher="patches", false_alarm_rate=0.2, outcome={"epochs": 3}
    )


def test_the_promise_holds_whatever_was_learnt(store: Path, thresholds: Thresholds) -> None:
    guarantee = thresholds.guarantee
    assert guarantee.finite_sample
    assert guarantee.order_statistic is not None
    found = detect(open_runs(store), thresholds)
    flagged = found["flagged"].values
    low, high = expected_band(guarantee.calibrate, guarantee.order_statistic, flagged.size)
    assert low <= flagged.sum() <= high
    shares = found["mask"].values.mean(axis=(1, 2))
    np.testing.assert_allclose(shares[flagged], 0.12, atol=0.02)
    assert (shares[~flagged] == 0).all()


def test_another_size_than_the_learnt_one_is_refused_before_runs_are_read(
    thresholds: Thresholds, tmp_path: Path
) -> None:
    sizes = {"smaller": (1, 12, 12), "larger": (1, 32, 32), "colour": (3, 16, 16)}
    for name, shape in sizes.items():
        synthetic_store(tmp_path / name, runs=4, steps=12, shape=shape, batch_size=4)
    found = detect(open_runs(tmp_path / "smaller"), thresholds, override=True)
    assert found["mask"].load().shape == (4, 12, 12)  # whose cells are pixels as well
    synthetic_store(tmp_path / "tiny", runs=4, steps=12, shape=(1, 3, 3), batch_size=4)
    with pytest.raises(InputError, match=r"layout .* by 24 numbers.*\(1, 3, 3\).* have 17"):
        detect(open_runs(tmp_path / "tiny"), thresholds, override=True)
    for name in ("larger", "colour"):
        said = rf"learnt on .* \(1, 16, 16\) .*found .* {re.escape(str(sizes[name]))}"
        with pytest.raises(InputError, match=said):
            detect(open_runs(tmp_path / name), thresholds, override=True)
        with pytest.raises(InputError, match=said):
            export_program(thresholds, tmp_path / "detector.pt2", shape=sizes[name])


def test_weights_travel_beside_the_file(thresholds: Thresholds, tmp_path: Path) -> None:
    path = thresholds.save(tmp_path / "thresholds.json")
    assert thresholds.weights is not None
    weights = tmp_path / thresholds.weights["name"]
    assert sorted(tmp_path.iterdir()) == sorted([path, weights])
    loaded = Thresholds.load(path)
    assert loaded == thresholds
    assert loaded.weights_bytes() == thresholds.weights_bytes()
    again = loaded.save(tmp_path / "again.json")
    assert Thresholds.load(again) == thresholds
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(ThresholdsError, match="SHA-256"):
        Thresholds.load(path)
    weights.unlink()
    with pytest.raises(ThresholdsError, match="Copy them beside"):
        Thresholds.load(path)
    lost = shutil.copy(path, tmp_path.parent / "lost.json")
    with pytest.raises(ThresholdsError, match="can't be read"):
        Thresholds.load(lost)


def test_torch_and_numpy_run_the_same_network(store: Path, thresholds: Thresholds) -> None:
    source = open_source(store)
    batch = next(source.batches(("eps", "x0")))
    numbers = {"alpha": source.alpha, "sigma": source.sigma, "log_snr": source.log_snr}
    detector = make_detector(thresholds, **numbers)
    found: dict[str, Any] = {}
    for name, wrap in (("numpy", np.asarray), ("torch", torch.from_numpy)):
        state = detector.start(batch.arrays["x0"][:, 0])
        for step in range(source.steps):
            eps, x0 = (wrap(batch.arrays[key][:, step]) for key in ("eps", "x0"))
            state = detector.update(state, step, eps=eps, x0=x0)
        found[name] = detector.result(state)
    np.testing.assert_allclose(found["torch"].score.numpy(), found["numpy"].score, atol=1e-4)
    assert (found["torch"].mask.numpy() == found["numpy"].mask).mean() > 0.999


def test_the_array_network_is_torchs_convolution() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(5, 1, 3, padding=1)
    )
    layers = [
        (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for layer in network
        if isinstance(layer, torch.nn.Conv2d) and layer.bias is not None
    ]
    inputs = torch.randn(2, 3, 7, 9)
    expected = network(inputs).detach().numpy()
    np.testing.assert_allclose(convolve(inputs.numpy(), layers), expected, atol=1e-5)


def test_the_map_learns_what_predicts_the_end() -> None:
    rng = np.random.default_rng(0)
    channels = rng.normal(size=(200, 4, 8, 8)).astype(np.float32)
    target = (np.abs(channels[:, 1]) - channels[:, 3]).astype(np.float32)  # no sign given
    before = torch.get_rng_state()
    layers = train_map(channels[:150], target[:150], epochs=25, seed=0)
    assert torch.equal(before, torch.get_rng_state())
    predicted = run_network(channels[150:], layers)
    assert np.corrcoef(predicted.ravel(), target[150:].ravel())[0, 1] > 0.8


def sources_of(store: Path, inputs: str) -> tuple[outcome.Stream, Examples]:
    """A stream that nothing was learnt for, and all runs of a store to learn from."""
    source = open_source(open_runs(store))
    everyone = np.ones(source.runs, np.bool_)
    stream = untrained_stream(source, everyone, window=(2, 6), parameters={"inputs": inputs})
    return stream, gather(source, stream, everyone, patch_model(final_samples(store)))


def final_samples(store: Path) -> Any:
    """Finished samples."""
    return open_runs(store)["sample"].values.astype(np.float32)


@pytest.mark.parametrize("inputs", ["dynamics", "snapshot", "both"])
def test_where_a_picture_shows_something_is_learnt_too(store: Path, inputs: str) -> None:
    """Runs end badly where two corners of what the score looks at agree: no mean shows that."""
    stream, examples = sources_of(store, inputs)
    shown = examples.statistics[:, :24]
    corners = (shown[:, [8, 23]] - shown[:, [8, 23]].mean(0)) / shown[:, [8, 23]].std(0)
    goal = (corners[:, 0] * corners[:, 1]).clip(-3, 3).astype(np.float32)
    first = np.arange(160) < 120
    learnt = learn(stream, some_of(replace(examples, goal=goal), first), epochs=1)
    assert learnt.parameters.products
    score = learnt.predict_from(examples.channels[~first], examples.statistics[~first])[1]
    assert np.corrcoef(score, goal[~first])[0, 1] > 0.6
    plain = learn(stream, some_of(replace(examples, goal=shown[:, 8]), first), epochs=1)
    assert not plain.parameters.products, "one number says it all"


def test_runs_of_one_prompt_do_not_vouch_for_each_other() -> None:
    """Four runs of each prompt are alike, and prompts end as they will: nothing can be learnt."""
    rng = np.random.default_rng(4)
    whose = np.repeat(np.arange(30), 4)
    first, second = halves_of(whose, 0)
    assert not set(whose[first]) & set(whose[second])
    assert len(first) == len(second) == 60
    seen = rng.normal(size=(30, 40))[whose] + 0.1 * rng.normal(size=(120, 40))
    goal = rng.normal(size=30)[whose]
    by_prompt = fit_run_model(seen.astype(np.float32), goal, whose)[0]
    by_run = fit_run_model(seen.astype(np.float32), goal, np.arange(120))[0]
    assert by_run < 0.5 * goal.var(), "its siblings say how a run ends"
    assert by_prompt > 0.9 * goal.var()


def test_what_only_rounding_moves_is_not_looked_at() -> None:
    rng = np.random.default_rng(5)
    seen = rng.normal(size=(300, 3)).astype(np.float32)
    seen[:, 1] = -1 + rng.normal(scale=1e-7, size=300)
    _, (_, *slopes) = fit_run_model(seen, seen[:, 0] + seen[:, 2], np.arange(300))
    assert slopes[1] == 0
    np.testing.assert_allclose([slopes[0], slopes[2]], 1, atol=0.05)


def some_of(examples: Examples, rows: Any) -> Examples:
    """Some of the examples."""
    names = ("rows", "channels", "statistics", "target", "final", "goal")
    return replace(examples, **{name: getattr(examples, name)[rows] for name in names})


def test_the_layout_of_a_picture_by_hand() -> None:
    rng = np.random.default_rng(2)
    picture = rng.normal(size=(3, 2, 9, 5))
    found = layout_statistics(picture)
    assert found.shape == (3, layout_size((9, 5))) == (3, 24)
    np.testing.assert_allclose(found[:, 0], picture.mean((1, 2, 3)))
    np.testing.assert_allclose(found[:, 4], np.abs(np.diff(picture, axis=2)).mean((1, 2, 3)))
    np.testing.assert_allclose(found[:, 7], np.abs(picture - picture[..., ::-1]).mean((1, 2, 3)))
    np.testing.assert_allclose(found[:, 8], picture[:, :, :2, :1].mean((1, 2, 3)))
    np.testing.assert_allclose(found[:, 23], picture[:, :, 6:, 3:].mean((1, 2, 3)))
    assert layout_statistics(picture[..., :1, :1]).shape == (3, layout_size((1, 1))) == (3, 9)
    terms = layout_terms(found, found.mean(0), found.std(0), products=True)
    assert terms.shape == (3, 24 + 300)
    np.testing.assert_allclose(terms[:, 24 + 24], terms[:, 1] ** 2)
    assert np.abs(terms[:, :24]).max() <= 3


def test_bad_requests(store: Path) -> None:
    few = open_runs(store).isel(run=slice(0, 80))
    with pytest.raises(InputError, match="at least 40 runs"):
        calibrate(few, method="outcome", teacher="patches", false_alarm_rate=0.2)
    with pytest.raises(InputError, match="inputs"):
        calibrate(
            store,
            method="outcome",
            teacher="patches",
            false_alarm_rate=0.2,
            parameters={"inputs": "all"},
        )


def test_worst_places_are_the_stated_share() -> None:
    predicted = np.random.default_rng(1).normal(size=(3, 10, 10))
    mask = outcome.artifact_mask(predicted, share=0.07)
    assert mask.sum(axis=(1, 2)).tolist() == [7, 7, 7]
    assert predicted[mask].min() > np.quantile(predicted, 0.8)


def test_a_look_ahead_is_the_same_in_the_loop_and_offline(
    tiny_pipeline: Any, tmp_path: Path
) -> None:
    path = tmp_path / "runs.zarr"
    record(tiny_pipeline, path, runs=128, steps=10, batch_size=32, seed=3)
    thresholds = calibrate(
        path,
        method="outcome",
        false_alarm_rate=0.2,
        outcome={"epochs": 2, "lookahead": 0.3, "draws": 1},
        pipeline=tiny_pipeline,
    )
    runs = open_runs(path)
    ahead = thresholds.parameters["lookahead"]
    assert ahead == pytest.approx(float(runs["log_snr"][thresholds.window.steps[1] + 3]))
    offline = detect(runs, thresholds, pipeline=tiny_pipeline)
    corrector = Corrector(thresholds, network=pipeline_network(tiny_pipeline))
    generators = run_generators(list(range(3, 3 + 32)))
    tiny_pipeline.scheduler.set_timesteps(10)
    sample_unconditional(
        tiny_pipeline,
        x_init=initial_noise(tiny_pipeline, generators),
        steps=10,
        generators=generators,
        listener=corrector,
    )
    found = [image.score for image in corrector.report]
    np.testing.assert_allclose(found, offline["score"].values[:32], atol=1e-3)
    blind = Corrector(thresholds)
    with pytest.raises(InputError, match="give a pipeline"):
        sample_unconditional(
            tiny_pipeline,
            x_init=initial_noise(tiny_pipeline, generators),
            steps=10,
            generators=generators,
            listener=blind,
        )
    with blind.attach(tiny_pipeline):  # takes the pipeline's own network
        tiny_pipeline(batch_size=2, num_inference_steps=10, output_type="np")
    assert len(blind.report) == 2


def test_networks_that_want_more_are_refused() -> None:
    with pytest.raises(InputError, match="network of your own"):
        pipeline_network(object())


def test_who_teaches_whole_runs_may_be_another(store: Path) -> None:
    source = open_source(store)
    everything = np.ones(source.runs, bool)
    stream = untrained_stream(source, everything, window=(2, 7), parameters={})
    places = patch_model(open_runs(store)["sample"].values, name="places", patches=300)
    other = patch_model(open_runs(store)["sample"].values * 0.5, name="runs", patches=300)
    alone = gather(source, stream, everything, places)
    both = gather(source, stream, everything, replace(places, runs=other))
    np.testing.assert_array_equal(alone.target, both.target)
    np.testing.assert_allclose(alone.goal, np.log(np.exp(alone.target).mean((1, 2))), atol=1e-5)
    expected = gather(source, stream, everything, other).goal
    np.testing.assert_allclose(both.goal, expected, atol=1e-5)
    assert np.abs(both.goal - alone.goal).mean() > 0.01
