"""Phases on planted trajectories whose boundaries are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from asced_analysis.phases.change_points import means_of, segment
from asced_analysis.phases.segmentation import Phases, activity_curves, segment_phases
from asced_analysis.phases.significance import population_tests, run_tests
from asced_analysis.statistics.saving import load, save
from asced_stores.errors import InputError


def test_change_points_are_those_of_an_exhaustive_search():
    rng = np.random.default_rng(0)
    curves = rng.random((6, 11)) + np.where((np.arange(11) > 3) & (np.arange(11) < 8), 0.6, 0)
    found = segment(curves)
    for curve, first, second, gain in zip(
        curves, found.first, found.second, found.gain, strict=True
    ):
        best = (-1.0, 0, 0)
        for i in range(2, 8):
            for j in range(i + 2, 10):
                parts = curve[:i], curve[i:j], curve[j:]
                means = [part.mean() for part in parts]
                if means[1] > max(means[0], means[2]):
                    explained = sum(
                        len(p) * (m - curve.mean()) ** 2 for p, m in zip(parts, means, strict=True)
                    )
                    best = max(best, (explained, i, j))
        assert (first, second) == best[1:]
        assert gain == pytest.approx(best[0])
    fitted = means_of(curves, found)
    first = int(found.first[0])
    np.testing.assert_allclose(fitted[0, :first], curves[0, :first].mean())


def test_steps_of_different_width_are_split_as_if_the_axis_were_sampled_evenly():
    rng = np.random.default_rng(1)
    widths = np.array([2, 3, 2, 2, 4, 3, 2, 5, 2, 3])
    curves = rng.random((20, 10)) + np.where((np.arange(10) > 3) & (np.arange(10) < 8), 1.0, 0)
    found = segment(curves, widths)
    even = np.repeat(curves, widths, axis=1)
    edges = np.concatenate([[0], np.cumsum(widths)])
    total = ((even - even.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    for run, (first, second) in enumerate(zip(found.first, found.second, strict=True)):
        parts = np.split(even[run], [edges[int(first)], edges[int(second)]])
        rest = sum(((part - part.mean()) ** 2).sum() for part in parts)
        # the gain is the sum of squares explained, in steps of mean width
        assert found.gain[run] == pytest.approx((total[run] - rest) / widths.mean())
        for i, j in ((3, 8), (4, 7), (2, 8), (4, 8), (3, 7)):
            others = np.split(even[run], [edges[i], edges[j]])
            means = [part.mean() for part in others]
            if means[1] > max(means[0], means[2]):
                assert sum(((p - p.mean()) ** 2).sum() for p in others) >= rest - 1e-9
    fitted = means_of(curves, found, widths)
    first = int(found.first[0])
    np.testing.assert_allclose(fitted[0, 0], even[0, : edges[first]].mean())


def test_one_wide_step_may_be_a_phase_and_one_narrow_step_may_not():
    curve = np.array([0.0, 0, 0, 0, 1, 1, 1, 1, 1, 0])
    wide = np.array([1.0, 1, 1, 1, 1, 1, 1, 1, 1, 4])
    assert segment(curve, wide).second[0] == 9
    assert segment(curve).second[0] == 8
    with pytest.raises(InputError, match="positive numbers"):
        segment(curve, wide - 1)


@pytest.mark.parametrize("curve", [np.ones(12), np.arange(12.0), np.arange(12.0)[::-1]])
def test_a_curve_without_a_hump_has_no_boundaries(curve):
    found = segment(curve)
    assert np.isnan(found.first[0])
    assert found.gain[0] == 0


def test_activity_is_the_share_of_pixels_beyond_the_runs_own_units(planted_runs):
    ds = planted_runs(runs=3, steps=9, size=8)
    kappa = (ds["sigma"] / ds["alpha"]).values[1:, None, None, None]
    rate = -kappa * np.diff(ds["eps"].values.astype(float), axis=1)
    rate /= np.diff(ds["log_snr"].values)[:, None, None, None]
    rate = rate.reshape(3, 8, -1)
    for unit, axis in (("step", -1), ("run", (-2, -1))):
        distance = np.abs(rate - np.median(rate, axis=axis, keepdims=True))
        scale = 1.4826 * np.median(distance, axis=axis, keepdims=True)
        curves, steps = activity_curves(ds, unit=unit, cutoff=2.5)
        np.testing.assert_allclose(curves, (distance > 2.5 * scale).mean(axis=-1), atol=1.6e-2)
        assert steps.tolist() == list(range(1, 9))


def test_boundaries_of_single_runs_are_found_within_one_step_and_intervals_cover_them(planted_runs):
    ds = planted_runs(runs=120, jitter=3, share=0.06, size=16)
    rows = segment_phases(ds, replicates=99, run_replicates=199, seed=1).per_run
    for name, truth in (("mutation", ds["truth_first"]), ("refinement", ds["truth_second"])):
        found = rows[f"{name}_step"].notna()
        assert found.mean() >= 0.90  # 94 and 98 % with this seed
        near = (np.abs(rows[f"{name}_step"] - truth.values) <= 1)[found]
        assert near.mean() >= 0.95
        assert covered_by(rows, name, truth).mean() >= 0.90


def test_intervals_cover_where_boundaries_are_hard_to_see(planted_runs):
    ds = planted_runs(runs=240, jitter=3, share=0.04, size=12, strength=8)
    rows = segment_phases(ds, replicates=9, run_replicates=199).per_run
    for name, truth in (("mutation", ds["truth_first"]), ("refinement", ds["truth_second"])):
        covered = covered_by(rows, name, truth)
        assert 0.25 < len(covered) / len(rows) < 0.75
        assert covered.mean() >= 0.85  # of some 120 runs: 90 % less two standard errors
        assert (rows[f"{name}_upper"] - rows[f"{name}_lower"]).mean() > 3


def covered_by(rows, name, truth):
    """Whether the intervals of the boundaries that were found hold the truth."""
    covered = (rows[f"{name}_lower"] <= truth.values) & (truth.values <= rows[f"{name}_upper"])
    return covered[rows[f"{name}_step"].notna()]


def test_boundaries_of_populations_are_found_and_covered(planted_runs):
    near, covered = [], []
    for seed in range(20):
        first, second = 6 + seed % 5, 15 + seed % 4
        ds = planted_runs(runs=20, seed=seed, share=0.05, size=10, first=first, second=second)
        phases = segment_phases(ds, replicates=99, run_replicates=0)
        assert phases.p_value <= 0.05
        for boundary, truth in zip(phases.population, (first, second), strict=True):
            low, high = boundary.step_interval
            near.append(abs(boundary.step - truth) <= 1)
            covered.append(low <= truth <= high)
    assert np.mean(near) >= 0.95
    assert np.mean(covered) >= 0.90


STEPS = 24
GROWING = np.linspace(0.1, 3, STEPS)
BURSTS = np.linspace(10, 2, STEPS)  # one mean, more and more skewed
NULL_FAMILIES = {
    "pixels of one law": lambda rng, runs: rng.poisson(2.0, (runs, STEPS)) / 144,
    "white noise": lambda rng, runs: rng.standard_normal((runs, STEPS)),
    "growing noise": lambda rng, runs: rng.standard_normal((runs, STEPS)) * GROWING,
    "bursts": lambda rng, runs: rng.gamma(BURSTS, 1 / BURSTS, (runs, STEPS)),
    "walks": lambda rng, runs: np.cumsum(rng.standard_normal((runs, STEPS)), axis=1),
}


@pytest.mark.parametrize("runs", [20, 200])
@pytest.mark.parametrize("family", NULL_FAMILIES)
def test_populations_without_phases_have_none(family, runs):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        tests, _ = population_tests(NULL_FAMILIES[family](rng, runs), np.ones(STEPS), 99, rng)
        found.append(any(there for there, _ in tests.boundaries(0.05)))
    # at a rate of 5 %, more than 18 of 200 happen once in a hundred
    assert sum(found) <= 18


@pytest.mark.parametrize("family", ["pixels of one law", "white noise", "growing noise", "bursts"])
def test_runs_without_phases_have_none(family):
    rng = np.random.default_rng(1)
    curves = NULL_FAMILIES[family](rng, 300)
    tests = run_tests(curves, np.ones(STEPS), 99, rng)
    found = [[there for there, _ in test.boundaries(0.05)] for test in tests]
    assert np.any(found, axis=1).mean() <= 0.09


def test_a_valley_is_no_phase():
    rng = np.random.default_rng(2)
    valley = np.where((np.arange(STEPS) > 7) & (np.arange(STEPS) < 16), -3, 0)
    curves = rng.standard_normal((20, STEPS)) + valley
    tests, _ = population_tests(curves, np.ones(STEPS), 99, rng)
    assert tests.change <= 0.05
    assert not any(there for there, _ in tests.boundaries(0.05))


def test_innovation_of_one_law_has_no_phases_and_everything_says_so(planted_runs):
    import matplotlib.pyplot as plt

    from asced_analysis import plots
    from asced_analysis.report.sections import phases_in_words

    ds = planted_runs(runs=12, seed=3, share=0.03, calm=0.03, size=8)
    phases = segment_phases(ds, replicates=99, run_replicates=0)
    assert phases.p_value > 0.05
    assert phases.population.spans("step", 0, 25) == []
    said = "No phases were found: activity may be the same at every step"
    ax = plots.phase_curve(phases)
    assert said in ax.get_title()
    plt.close(ax.figure)
    for words in (phases.verdict(), phases_in_words(phases), phases._repr_html_()):
        assert said in words
    assert "<th>" not in phases._repr_html_()  # of a table without a row


def test_a_selection_of_steps_keeps_its_normalised_time(planted_runs):
    ds = planted_runs(runs=10)
    half = segment_phases(ds.isel(step=slice(None, None, 2)), replicates=99, run_replicates=0)
    time = half.activity["normalised_time"]
    assert float(time.max()) < 1
    np.testing.assert_allclose(time, half.activity["step"] / 25)


def test_a_change_of_networks_is_no_phase(planted_runs):
    """Wan 2.2 hands over to another expert: the step between the two tells of neither."""
    ds = planted_runs(runs=10)
    steps = ds.sizes["step"]
    names = ["high"] * 5 + ["low"] * (steps - 5)
    phases = segment_phases(
        ds.assign_attrs(networks_by_step=names), replicates=99, run_replicates=0
    )
    plain = segment_phases(ds, replicates=99, run_replicates=0)
    left_out = set(plain.activity["step"].values) - set(phases.activity["step"].values)
    assert len(left_out) == 1
    assert "Another network takes over at step 5: that change is left out." in phases.verdict()


@pytest.mark.parametrize(
    ("first", "second", "missing"), [(10, 99, "refinement"), (0, 14, "mutation")]
)
def test_a_rise_without_a_fall_and_a_fall_without_a_rise_have_one_boundary(
    planted_runs, first, second, missing
):
    found = []
    for seed in range(20):
        ds = planted_runs(runs=20, seed=seed, share=0.05, first=first, second=second, size=10)
        population = segment_phases(ds, replicates=99, run_replicates=0).population
        absent = getattr(population, missing)
        other = population.mutation if missing == "refinement" else population.refinement
        found.append(np.isfinite(absent.step))
        if np.isfinite(other.step):
            assert abs(other.step - (first if missing == "refinement" else second)) <= 2
        else:  # a fall by chance before a true rise, or after it
            assert absent.p_value <= 0.05
        assert other.p_value <= 0.05
    assert np.mean(found) <= 0.2  # 5 % are expected: 4 of 20 or fewer


def test_phases_with_one_boundary_are_drawn_told_and_calibrated(planted_runs):
    import matplotlib.pyplot as plt

    from asced_analysis import plots
    from asced_analysis.report.sections import phases_in_words

    for first, second, spans in (
        (10, 99, ["Profiling", "Mutation"]),
        (0, 14, ["Mutation", "Refinement"]),
        (8, 17, ["Profiling", "Mutation", "Refinement"]),
    ):
        ds = planted_runs(runs=60, share=0.05, first=first, second=second, size=10)
        phases = segment_phases(ds, replicates=99, run_replicates=0)
        found = phases.population.spans("step", 0, 25)
        assert [name for name, _, _ in found] == spans
        assert (found[0][1], found[-1][2]) == (0, 25)
        assert [left for _, left, _ in found[1:]] == [right for _, _, right in found[:-1]]
        ax = plots.phase_curve(phases)
        shown = [text.get_text() for text in ax.texts]
        assert [name for name in ("Profiling", "Mutation", "Refinement") if name in shown] == spans
        plt.close(ax.figure)
        said = phases_in_words(phases)
        assert "nan" not in said
        for name in spans[1:]:
            assert f"{name} begins at step" in said


def test_few_runs_have_intervals_over_steps(planted_runs):
    covered = []
    for seed in range(20):
        ds = planted_runs(runs=2, seed=seed, share=0.05, size=12)
        population = segment_phases(ds, replicates=199, run_replicates=0).population
        for boundary, truth in zip(population, (8, 17), strict=True):
            if np.isfinite(boundary.step):
                covered.append(boundary.step_interval[0] <= truth <= boundary.step_interval[1])
    assert len(covered) >= 30  # of 40: two runs say what they can
    assert np.mean(covered) >= 0.90


def test_one_run_alone_is_tested_by_its_steps(planted_runs):
    phases = segment_phases(planted_runs(runs=1), replicates=199, run_replicates=9)
    assert phases.attributes["test"].endswith("permutations of steps")
    assert phases.p_value < 0.05
    assert phases.population.mutation.step == 8


def test_step_normalised_time_and_log_snr_name_one_place(planted_runs):
    ds = planted_runs(runs=10)
    mutation = segment_phases(ds, replicates=99, run_replicates=0).population.mutation
    assert mutation.step == 8
    assert mutation.normalised_time == 8 / 25
    assert mutation.log_snr == ds["log_snr"].values[8]
    assert mutation.log_snr_interval[0] <= mutation.log_snr <= mutation.log_snr_interval[1]
    ds = planted_runs(runs=10, share=0.04, size=12, strength=8)
    rows = segment_phases(ds, replicates=9, run_replicates=49).per_run
    for part in ("step", "lower", "upper"):
        end = "" if part == "step" else f"_{part}"
        step = rows[f"mutation_{part}"].dropna()
        rows = rows.loc[step.index]
        np.testing.assert_array_equal(rows[f"mutation_normalised_time{end}"], step / 25)
        log_snr = ds["log_snr"].values[step.astype(int)]
        np.testing.assert_array_equal(rows[f"mutation_log_snr{end}"], log_snr)
    assert (rows["mutation_lower"] < rows["mutation_upper"]).any()


def test_activity_of_a_whole_image_needs_the_unit_of_the_run(planted_runs):
    ds = planted_runs(runs=20, share=1.0, calm=0.0, strength=20, first=9, second=15)
    phases = segment_phases(ds, unit="run", replicates=99, run_replicates=0)
    assert [boundary.step for boundary in phases.population] == [9, 15]


def test_phases_survive_json(planted_runs, tmp_path):
    phases = segment_phases(planted_runs(runs=6, size=6), replicates=19, run_replicates=9)
    save(phases, tmp_path / "phases.json")
    again = load(tmp_path / "phases.json")
    assert again.to_json() == phases.to_json()
    assert again.population == phases.population
    assert "per_run" not in json.loads(phases.to_json(per_run=False))
    assert Phases.from_json(phases.to_json(per_run=False)).population == phases.population
    with pytest.raises(InputError, match="no phases file"):
        Phases.from_json("{}")
    newer = json.loads(phases.to_json()) | {"format_version": 99}
    with pytest.raises(InputError, match="upgrade"):
        Phases.from_json(json.dumps(newer))


def test_runs_that_are_not_finite_are_left_out_and_counted(planted_runs):
    ds = planted_runs(runs=12, size=6)
    ds["eps"][3, 4, 0, 0, 0] = np.nan
    phases = segment_phases(ds, replicates=19, run_replicates=9)
    assert phases.runs == 11
    assert phases.attributes["failed_runs"] == 1
    assert phases.per_run.loc[3].isna().all()
    assert len(phases.per_run) == 12


def test_too_few_steps_and_unknown_names_are_refused(planted_runs):
    with pytest.raises(InputError, match="no activity of 'eps'"):
        segment_phases(planted_runs(runs=2), signal="eps")
    ds = planted_runs(runs=4, size=6)
    with pytest.raises(InputError, match="3 steps found; three phases need at least 4"):
        segment_phases(ds.isel(step=slice(0, 3)))
    with pytest.raises(InputError, match="no unit"):
        segment_phases(ds, unit="pixel")
    with pytest.raises(InputError, match="confidence"):
        segment_phases(ds, confidence=95)
