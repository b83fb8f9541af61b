"""Features of runs against plain NumPy, and rankings with estimators of one's own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.base import BaseEstimator
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import Pipeline
from sklearn.svm import OneClassSVM
from sklearn.utils.validation import check_is_fitted

from asced_analysis.counts import changes
from asced_analysis.statistics.features import DESCRIPTIONS, run_features
from asced_analysis.statistics.outliers import outlier_pipeline, rank_runs
from asced_stores.errors import InputError
from asced_stores.testing.synthetic import ddim_levels


def _runs(x0, eps=None):
    """Runs in memory of DDIM, from x0 of shape (run, step, channel, y, x)."""
    timestep, alpha, sigma = ddim_levels(x0.shape[1])
    eps = np.random.default_rng(5).standard_normal(x0.shape) if eps is None else eps
    dims = ("run", "step", "channel", "y", "x")
    return xr.Dataset(
        {"eps": (dims, eps.astype("f4")), "x0": (dims, x0.astype("f4"))},
        {
            "run": np.arange(len(x0)),
            "step": np.arange(x0.shape[1]),
            "timestep": ("step", timestep),
            "alpha": ("step", alpha),
            "sigma": ("step", sigma),
            "log_snr": ("step", 2 * np.log(alpha / sigma)),
        },
    )


def _path(positions):
    """One pixel row whose pixels all go through these positions."""
    return np.broadcast_to(np.reshape(positions, (1, -1, 1, 1, 1)), (1, len(positions), 1, 3, 4))


def test_a_straight_path_undoes_nothing_and_a_zigzag_almost_all():
    straight = run_features(_runs(_path(np.arange(11.0)))).loc[0]
    assert straight["reversal"] == 0
    assert straight["straightness"] == pytest.approx(1, abs=1e-6)
    zigzag = run_features(_runs(_path(np.arange(11) % 2))).loc[0]
    assert zigzag["reversal"] == pytest.approx(9 / 10, abs=1e-6)  # the last move stands
    assert zigzag["straightness"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("moves", "share"),
    [
        ([4, -1, 1, 0], 2 / 6),  # 1 of the 4 is undone, and the 1 after it
        ([1, -4, 0, 1], 1 / 6),  # no more is undone than there was
        ([-2, 0, 2, 3], 0),  # only the next step counts
        ([0, 0, 0, 0], 0),
    ],
)
def test_reversal_is_what_the_next_step_takes_back(moves, share):
    path = _path(np.concatenate([[0.0], np.cumsum(moves)]))
    assert run_features(_runs(path)).loc[0, "reversal"] == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("part", [1 << 16, 130, 25], ids=["all steps", "two steps", "half a step"])
def test_all_features_by_hand(part, monkeypatch):
    monkeypatch.setattr(changes, "PART", part)
    rng = np.random.default_rng(0)
    shape = (2, 9, 2, 5, 6)
    ds = _runs(np.cumsum(rng.standard_normal(shape), axis=1), rng.standard_t(3, shape))
    found = run_features(ds, by_step=True)
    assert list(found.columns[: len(DESCRIPTIONS)]) == list(DESCRIPTIONS)
    assert not found.attrs
    alpha, sigma, snr = (ds[name].values for name in ("alpha", "sigma", "log_snr"))
    for run in (0, 1):
        eps, x0 = (ds[name].values[run].astype(float) for name in ("eps", "x0"))
        pixels = (1, 2, 3)
        rate = np.stack(
            [
                np.abs(sigma[k] / alpha[k] * (eps[k] - eps[k - 1]) / (snr[k] - snr[k - 1]))
                for k in range(1, 9)
            ]
        )
        loud = np.log(np.sqrt((rate**2).mean(axis=pixels)))
        local = np.log(np.quantile(rate, 0.99, axis=pixels) / np.median(rate, axis=pixels))
        move = np.diff(x0, axis=0)
        undone = 0.0
        for k in range(7):
            for before, after in zip(move[k].ravel(), move[k + 1].ravel(), strict=True):
                if before * after < 0:
                    undone += min(abs(before), abs(after))
        path = sum(np.sqrt((move[k] ** 2).mean()) for k in range(8))
        speed = np.abs(np.diff(eps, axis=0)) * 9  # steps are a ninth of the time apart
        last = x0[-1]
        roughness = np.concatenate(
            [(last[:, 1:] - last[:, :-1]).ravel(), (last[:, :, 1:] - last[:, :, :-1]).ravel()]
        )
        expected = {
            "innovation_early": loud[:3].mean(),
            "innovation_middle": loud[3:6].mean(),
            "innovation_late": loud[6:].mean(),
            "innovation_peak_time": (1 + np.argmax(local)) / 9,
            "local_peak": local.max(),
            "acceleration_peak": np.quantile(
                np.diff(np.abs(move), axis=0), 0.99, axis=pixels
            ).max(),
            "reversal": undone / np.abs(move).sum(),
            "path_length": path,
            "straightness": np.sqrt(((x0[-1] - x0[0]) ** 2).mean()) / path,
            "trajectory_variance": x0[-3:].var(axis=0).mean(),
            "final_contrast": last.std(),
            "final_roughness": np.sqrt((roughness**2).mean()),
        }
        for power in (1, 2, 3):
            expected[f"eps_power_{power}"] = (np.abs(eps) ** power).mean(axis=pixels).sum()
            expected[f"eps_rate_power_{power}"] = (speed**power).mean(axis=pixels).sum()
        assert set(expected) == set(DESCRIPTIONS)
        for name, value in expected.items():
            np.testing.assert_allclose(found.loc[run, name], value, rtol=1e-4, err_msg=name)
        for k in range(1, 9):
            np.testing.assert_allclose(found.loc[run, f"innovation_{k}"], loud[k - 1], rtol=1e-4)
            np.testing.assert_allclose(found.loc[run, f"local_{k}"], local[k - 1], rtol=1e-4)


def test_logarithms_are_called_so():
    assert "natural log" in DESCRIPTIONS["local_peak"]
    assert "natural log of the ratio" in " ".join((run_features.__doc__ or "").split())


def test_features_say_which_steps_they_leave_out():
    ds = _runs(np.random.default_rng(1).standard_normal((3, 8, 1, 4, 4)))
    alpha, sigma, snr = (ds[name].values.copy() for name in ("alpha", "sigma", "log_snr"))
    alpha[0], sigma[0], snr[0] = 0.0, 1.0, -np.inf
    alpha[7], sigma[7], snr[7] = 1.0, 0.0, np.inf
    singular = ds.assign_coords(alpha=("step", alpha), sigma=("step", sigma), log_snr=("step", snr))
    found = run_features(singular)
    assert np.isfinite(found.to_numpy()).all()
    assert found.attrs["dropped_steps"] == [0, 7]
    assert "left out" in found.attrs["note"]


@pytest.fixture
def table():
    """Sixty runs of four features, run 7 far from the rest."""
    values = np.random.default_rng(2).standard_normal((60, 4))
    values[7] += 9
    return pd.DataFrame(values, columns=list("abcd")).rename_axis("run")


class Distance:
    """An estimator without scikit-learn's base class."""

    def fit(self, X):
        self.centre = np.median(X, axis=0)
        return self

    def score_samples(self, X):
        return -np.linalg.norm(np.asarray(X) - self.centre, axis=1)


@pytest.mark.parametrize(
    "model",
    [
        IsolationForest(random_state=0),
        OneClassSVM(nu=0.1),
        KernelDensity(),
        outlier_pipeline("pca"),
        Distance(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_an_estimator_of_ones_own_ranks_and_stays_as_it_is(table, model):
    ranking = rank_runs(table, model)
    assert ranking.index[0] == 7
    assert ranking["outlier"].dtype == bool
    assert ranking["outlier"].iloc[0] == hasattr(model, "predict")
    if isinstance(model, BaseEstimator):
        part = model.steps[-1][1] if isinstance(model, Pipeline) else model
        fitted = [name for name in vars(part) if name.endswith("_") and not name.startswith("_")]
        assert not fitted
    else:
        assert not vars(model)


def test_a_fitted_estimator_is_not_fitted_again(table):
    model = IsolationForest(random_state=0).fit(table.to_numpy()[:, :2])
    rank_runs(table, model)
    check_is_fitted(model)
    assert model.n_features_in_ == 2


@pytest.mark.parametrize("model", [IsolationForest, 3, LocalOutlierFactor(), "oracle"])
def test_what_cannot_rank_is_refused(table, model):
    with pytest.raises(InputError, match="robust_covariance, isolation_forest, pca"):
        rank_runs(table, model)
