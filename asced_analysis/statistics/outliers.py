"""Which runs to look at first: outlier models over run features, as scikit-learn pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.pipeline import Pipeline

from asced_stores.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

OutlierModel: TypeAlias = Literal["robust_covariance", "isolation_forest", "pca"]


class PCAOutlier(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Distance from the principal plane of the population: what the usual variation misses.

    Parameters
    ----------
    variance : float
        Share of the variance that the plane explains.
    central : float
        The plane is fitted to this share of the rows, those nearest to the median: fitted to all
        of them, one far outlier turns the plane to itself.
    contamination : float
        Share of the training runs that `predict` calls outliers.
    """

    def __init__(
        self, variance: float = 0.9, central: float = 0.8, contamination: float = 0.05
    ) -> None:
        self.variance = variance
        self.central = central
        self.contamination = contamination

    def fit(self, X: npt.ArrayLike, y: object = None) -> PCAOutlier:
        """Fit the plane; ``y`` is ignored."""
        from sklearn.decomposition import PCA

        values = np.asarray(X, np.float64)
        self.n_features_in_ = values.shape[1]
        distance = np.linalg.norm(values - np.median(values, axis=0), axis=1)
        near = values[distance <= np.quantile(distance, self.central)]
        self.pca_ = PCA(n_components=self.variance, svd_solver="full").fit(near)
        self.offset_ = float(np.quantile(self.score_samples(values), self.contamination))
        return self

    def score_samples(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Minus the distance of each row from the plane: lower is more abnormal."""
        values = np.asarray(X, np.float64)
        rest = values - self.pca_.inverse_transform(self.pca_.transform(values))
        score: npt.NDArray[np.float64] = -np.sqrt(np.mean(rest**2, axis=1))
        return score

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """`score_samples` moved so that outliers are negative."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """-1 for outliers, 1 for the rest."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def outlier_pipeline(
    model: OutlierModel = "isolation_forest", *, contamination: float = 0.05, seed: int = 0
) -> Pipeline:
    """Scaling and an outlier model in one scikit-learn estimator.

    Parameters
    ----------
    model : {"robust_covariance", "isolation_forest", "pca"}
        Mahalanobis distance under a robust covariance of whitened components, isolation forest,
        or distance from the principal plane.
    contamination : float
        Share of the training runs that ``predict`` calls outliers.
    seed : int
        Of the random parts.

    Returns
    -------
    sklearn.pipeline.Pipeline
        With ``fit``, ``predict`` (-1 is an outlier) and ``score_samples`` (lower is more
        abnormal).

    Raises
    ------
    InputError
        When there is no such model.
    """
    from sklearn.covariance import EllipticEnvelope
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.preprocessing import RobustScaler

    steps: list[tuple[str, Any]] = [("scale", RobustScaler())]
    if model == "robust_covariance":
        # features overlap; without this the covariance is close to singular
        steps.append(("components", PCA(n_components=0.99, svd_solver="full", whiten=True)))
        envelope = EllipticEnvelope(
            contamination=contamination, support_fraction=0.85, random_state=seed
        )
        steps.append(("outliers", envelope))
    elif model == "isolation_forest":
        forest = IsolationForest(n_estimators=200, contamination=contamination, random_state=seed)
        steps.append(("outliers", forest))
    elif model == "pca":
        steps.append(("outliers", PCAOutlier(contamination=contamination)))
    else:
        raise InputError(f"no model {model!r}; choose one of {', '.join(get_args(OutlierModel))}")
    return Pipeline(steps)


def rank_runs(
    features: pd.DataFrame, model: OutlierModel | BaseEstimator = "isolation_forest"
) -> pd.DataFrame:
    """Which runs to look at first, and why.

    Parameters
    ----------
    features : pandas.DataFrame
        Result of `run_features`; runs with NaN come first, with an infinite score.
    model : str or estimator
        As in `outlier_pipeline`, or an estimator of one's own with ``score_samples`` (lower is
        more abnormal), of which a copy is fitted.

    Returns
    -------
    pandas.DataFrame
        Indexed by run, the most abnormal first: ``rank`` (from 0), ``score`` (higher is more
        abnormal), ``outlier`` (whether the model predicts -1; False throughout where it does not
        predict), ``reason`` (the feature farthest from the population) and ``deviation`` (by how
        many robust units, signed).

    Raises
    ------
    InputError
        With fewer than ten runs, or when the model is neither a name of one nor an estimator.
    """
    import pandas as pd

    estimator = _estimator(model)
    finite = np.isfinite(features.to_numpy()).all(axis=1)
    known = features[finite]
    if len(known) < 10:
        raise InputError(f"{len(known)} runs with finite features; outliers need at least 10")
    estimator.fit(known)
    centre = known.median()
    spread = 1.4826 * (known - centre).abs().median()
    spread = spread.where(spread > 0, known.std() + 1e-12)
    deviation = (known - centre) / spread
    reason = deviation.abs().idxmax(axis=1)
    values = deviation.to_numpy()[np.arange(len(known)), deviation.columns.get_indexer(reason)]
    table = pd.DataFrame(
        {
            "score": -estimator.score_samples(known),
            "outlier": estimator.predict(known) == -1 if hasattr(estimator, "predict") else False,
            "reason": reason,
            "deviation": values,
        },
        index=known.index,
    )
    if not finite.all():
        broken = pd.DataFrame(
            {"score": np.inf, "outlier": True, "reason": "not finite", "deviation": np.inf},
            index=features.index[~finite],
        )
        table = pd.concat([broken, table])
    table = table.sort_values("score", ascending=False, kind="stable")
    table.insert(0, "rank", np.arange(len(table)))
    return table


def _estimator(model: OutlierModel | BaseEstimator) -> Any:
    """An estimator to fit: a named one, or a copy of the caller's, which stays as it is."""
    if isinstance(model, str):
        return outlier_pipeline(cast("OutlierModel", model))
    if isinstance(model, type) or not hasattr(model, "score_samples"):
        raise InputError(
            f"model {model!r} found; expected one of {', '.join(get_args(OutlierModel))}, or an "
            "estimator (not its class) with fit and score_samples"
        )
    return clone(model, safe=False)
