"""The pure parts of experiments/: scores, faults, shapes, figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asced_recorders import load_pipeline
from asced_recorders.tap.tap import StepEvent
from experiments.correction import masks
from experiments.datasets import faults, gaussian_grid, shapes
from experiments.detection import ranking, rankings
from experiments.judges.counting import redrawn, single_shapes
from experiments.judges.learnt import SHAPES


@pytest.mark.parametrize("smoothing", [0.0, 0.05])
@pytest.mark.parametrize(("alpha", "sigma"), [(0.3, 0.95), (0.9, 0.43), (0.999, 0.03)])
def test_score_of_the_grid_is_the_gradient_of_its_log_density(
    smoothing: float, alpha: float, sigma: float
) -> None:
    x = np.random.default_rng(0).standard_normal((64, 2))
    points = torch.tensor(x, requires_grad=True)
    variance = (0.05**2 + smoothing**2) / gaussian_grid.UNIT**2
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(25, dtype=torch.float64)),
        torch.distributions.Independent(
            torch.distributions.Normal(
                alpha * torch.from_numpy(gaussian_grid.MEANS),
                (alpha**2 * variance + sigma**2) ** 0.5,
            ),
            1,
        ),
    )
    mixture.log_prob(points).sum().backward()
    assert points.grad is not None
    expected = -sigma * points.grad.numpy()
    found = gaussian_grid.predicted_noise(x, alpha, sigma, smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_averaged_score_without_smoothing_is_the_sharp_one() -> None:
    x = np.random.default_rng(0).standard_normal((8, 2))
    rng = np.random.default_rng(1)
    found = gaussian_grid.predicted_noise(x, 0.9, 0.43, 0.0, rng=rng)
    np.testing.assert_allclose(found, gaussian_grid.predicted_noise(x, 0.9, 0.43, 0.0))


def test_shapes_have_the_sizes_and_columns_of_the_data() -> None:
    assert all(60 <= shapes.stamp(kind).sum() <= 70 for kind in shapes.KINDS)
    images = shapes.draw_images(200, seed=3)
    white = (images[:, 0] > 0).sum((1, 2))
    assert white.min() >= 60
    assert white.max() <= 210
    assert not (images[:, 0, 63] > 0).any()
    np.testing.assert_array_equal(shapes.unfold(shapes.fold(images)), images)


def test_judge_of_shapes_finds_no_fault_in_the_data() -> None:
    found = shapes.judge(shapes.draw_images(200, seed=4))
    assert not found.broken.any()
    assert not found.blank.any()
    assert not found.mask.any()


def test_judge_of_shapes_names_each_fault() -> None:
    images = np.full((5, 1, 64, 64), -1.0, np.float32)

    def put(index: int, kind: str, top: int, left: int) -> None:
        shape = shapes.stamp(kind)
        part = images[index, 0, top : top + shape.shape[0], left : left + shape.shape[1]]
        part[shape] = 1.0

    put(0, "square", 5, 25)
    put(0, "square", 40, 28)
    put(1, "triangle", 10, 46)
    put(2, "pentagon", 10, 46)
    images[2, 0, 30:34, 2:9] = 1.0
    put(3, "pentagon", 10, 46)
    put(3, "triangle", 10, 3)
    found = shapes.judge(images)
    assert found.doubled.tolist() == [True, False, False, False, False]
    assert found.misplaced.tolist() == [False, True, False, False, False]
    assert found.malformed.tolist() == [False, False, True, False, False]
    assert found.blank.tolist() == [False, False, False, False, True]
    assert found.mask.sum((1, 2)).tolist() == [128, int(shapes.stamp("triangle").sum()), 28, 0, 0]
    assert shapes.blocks(found.mask).shape == (5, 16, 16)


def test_judge_of_shapes_lets_soft_edges_pass_and_finds_a_fault_behind_them() -> None:
    """A pentagon that the model draws softly is no square in a pentagon's column."""
    pipe = load_pipeline(SHAPES, device="cpu")
    own = redrawn(pipe, single_shapes(64, misplaced=False, seed=1), 16)
    narrowly = shapes.judge(own, margin=0.0).broken.mean()
    assert shapes.judge(own).broken.mean() <= 0.02 < narrowly
    other = redrawn(pipe, single_shapes(64, misplaced=True, seed=1), 22)
    assert (
        shapes.judge(other).misplaced.mean() > 0.4
    )  # the model turns the rest into their column's


def _event(step: int, sample: torch.Tensor, eps: torch.Tensor) -> StepEvent:
    from diffusers import DDIMScheduler

    from asced_recorders.tap.schedulers import step_table

    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(25)
    return StepEvent(step_table(scheduler), step, sample, eps, None)


@pytest.mark.parametrize("kind", faults.KINDS)
def test_a_fault_changes_its_region_alone(kind: str) -> None:
    drawn = faults.draw_fault(faults.KINDS.index(kind), (32, 32), 25)
    assert drawn.kind == kind
    assert drawn.mask.any()
    generator = torch.Generator().manual_seed(0)
    sample, first, eps = (torch.randn((2, 1, 32, 32), generator=generator) for _ in range(3))
    plant = faults.Plant([drawn, drawn], [0, 1])
    outside = ~torch.from_numpy(drawn.mask)
    if kind == "score_trap":
        assert plant.before_step(_event(drawn.step - faults.BACK, sample, first)) is None
        output = plant.before_step(_event(drawn.step, sample, eps))
        assert output is not None
        mixed = drawn.strength * first + (1 - drawn.strength) * eps
        torch.testing.assert_close(output[..., ~outside], mixed[..., ~outside])
        assert torch.equal(output[..., outside], eps[..., outside])
    else:
        changed = plant.after_step(_event(drawn.step - 1, sample, eps), sample)
        assert changed is not None
        assert torch.equal(changed[..., outside], sample[..., outside])
        assert (changed[..., ~outside] != sample[..., ~outside]).all()


def test_top_share_is_exact_and_prefers_the_inside() -> None:
    maps = np.zeros((3, 20, 20))
    maps[:, 4:6, 4:6] = 1.0
    found = masks.top_share(maps, 0.1)
    assert found.sum((1, 2)).tolist() == [40, 40, 40]
    assert found[:, 4:6, 4:6].all()
    inside = np.zeros((3, 20, 20), np.bool_)
    inside[:, 10:] = True
    assert not masks.top_share(maps, 0.1, inside=inside)[:, :10].any()


def test_accuracy_at_equal_numbers_does_not_choose_on_the_runs_it_reports() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) < 100
    assert ranking.balanced_accuracy(labels + 0.0, labels) == 1.0
    noise = [ranking.balanced_accuracy(rng.random(400), labels, seed=i) for i in range(40)]
    assert abs(np.mean(noise) - 0.5) < 0.03


def test_risk_falls_with_coverage_for_a_perfect_score() -> None:
    labels = np.arange(100) >= 80
    risk, area = ranking.risk_coverage(np.arange(100.0), labels, points=10)
    assert risk[:8] == [0.0] * 8
    assert risk[-1] == pytest.approx(0.2)
    assert area < ranking.risk_coverage(-np.arange(100.0), labels)[1]


def test_overlap_of_a_perfect_map_is_one() -> None:
    truth = np.zeros((6, 8, 8), np.bool_)
    truth[:, 2:4, 2:4] = True
    assert ranking.best_overlap(truth.astype(np.float32), truth) == pytest.approx(1.0)


def test_fast_figures_equal_those_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    maps = np.round(rng.standard_normal((5, 12, 12)), 1)
    truth = rng.random(maps.shape) < 0.1 + 0.2 * (maps > 1)
    found = ranking.count_pixels(maps, truth)
    assert found.precision() == pytest.approx(average_precision_score(truth.ravel(), maps.ravel()))
    times = np.array([2, 0, 1, 1, 1])
    chosen = np.repeat(np.arange(5), times)
    assert found.precision(times) == pytest.approx(
        average_precision_score(truth[chosen].ravel(), maps[chosen].ravel())
    )
    scores, labels = np.round(rng.standard_normal(80), 1), rng.random(80) < 0.3
    assert ranking.image_auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_overlap_of_groups_is_at_one_level() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((40, 8, 8), np.bool_)
    truth[:, 2:5, 2:5] = True
    maps = truth + 0.1 * rng.random(truth.shape)
    faint = np.arange(40) % 4 < 2
    maps[faint] *= 0.01  # below any level that serves the others
    found = ranking.group_overlaps(maps, truth, {"faint": faint, "clear": ~faint})
    assert found["faint"] < 0.01
    assert found["clear"] > 0.8
    assert 0.4 < ranking.best_overlap(maps, truth) < 0.6


def test_delays_count_from_the_onset() -> None:
    first = np.array([-1, 4, 6, 9, 2, 7])
    onset = np.array([5, 5, 5, 5, 5, 5])
    broken = np.array([True, True, True, True, True, False])
    found = rankings.delays(first, onset, broken)
    assert found == {"detected": 0.4, "flagged_before_onset": 0.4, "delay": 2.5}
    assert rankings.delays(first[:1], onset[:1], broken[:1])["delay"] is None
