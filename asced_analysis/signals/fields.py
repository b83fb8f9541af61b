"""Derived variables of recorded runs, lazily: the xarray layer over `signals.dynamics`.

Every function takes a Dataset as `open_runs` returns it, and the name of a signal where there are
several: ``weighted_score``, ``predicted_x0`` or ``innovation``. It gives a DataArray with the same
run coordinates, chunked as the store is; nothing is read before ``compute``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.signals import dynamics as kernels
from asced_analysis.signals.dimensions import check_images, with_channel
from asced_stores.errors import InputError, TooFewStepsError

Signal: TypeAlias = Literal["weighted_score", "predicted_x0", "innovation"]
"""What is followed over the steps: the paper's Eq. 4, the released code's, or the model's part."""

SIGNALS: tuple[Signal, ...] = get_args(Signal)

RECORDED: dict[str, str] = {"weighted_score": "eps", "predicted_x0": "x0", "innovation": "eps"}
"""The recorded variable that each signal follows from."""

LONG_NAMES: dict[str, str] = {
    "weighted_score": "weighted score W",
    "predicted_x0": "predicted x0",
    "innovation": "innovation",
}

UNITS = "data units"


def signal(ds: xr.Dataset, name: str = "weighted_score") -> xr.DataArray:
    """One of the three signals, lazily.

    Returns
    -------
    xarray.DataArray, dims (run, step, [frame,] channel, y, x), float32
        In units of the data's range. An innovation belongs to the later step of its pair, so it
        has one step less. Steps at which the signal is infinite are left out, and
        ``attrs["dropped_steps"]`` names them.
    """
    ds = with_channel(ds)
    if check_signal(name) == "innovation":
        return dynamics(ds, name)
    if name == "predicted_x0":
        return _describe(_combine(recorded(ds, "x0")), LONG_NAMES[name], UNITS, name)
    used, dropped = regular_steps(ds)
    kappa = kernels.noise_ratio(*_levels(used, "alpha", "sigma"))
    weighted = _combine(recorded(used, "eps"), before=-kappa)
    return _describe(weighted, LONG_NAMES[name], UNITS, name, dropped)


def score(ds: xr.Dataset) -> xr.DataArray:
    """Score of the noised distribution, ``-eps / sigma``, lazily.

    Returns
    -------
    xarray.DataArray, dims (run, step, [frame,] channel, y, x), float32
    """
    ds = with_channel(ds)
    (sigma,) = _levels(ds, "sigma")
    result = _combine(recorded(ds, "eps"), before=-1.0 / sigma)
    return _describe(result, "score s", f"1 / {UNITS}", "score")


def dynamics(ds: xr.Dataset, name: str = "weighted_score") -> xr.DataArray:
    """Difference of a signal between adjacent steps, lazily (Eq. 4 of arXiv:2503.16218).

    Parameters
    ----------
    name : {"weighted_score", "predicted_x0", "innovation"}
        An innovation is a difference already.

    Returns
    -------
    xarray.DataArray, dims (run, step, [frame,] channel, y, x), float32
        One step less; ``step`` names the later step k of ``D_k = W_k - W_{k-1}``.
    """
    ds = with_channel(ds)
    if check_signal(name) == "innovation":
        alpha, sigma = _levels(ds, "alpha", "sigma")
        kappa = np.r_[np.nan, kernels.noise_ratio(alpha[1:], sigma[1:])]
        change = _combine(recorded(ds, "eps"), after=-kappa, lag=1)
        return _describe(change, "innovation", UNITS, name)
    dropped: list[int] = []
    if name == "predicted_x0":
        change = _combine(recorded(ds, "x0"), lag=1)
    else:
        used, dropped = regular_steps(ds)
        kappa = kernels.noise_ratio(*_levels(used, "alpha", "sigma"))
        change = _combine(recorded(used, "eps"), before=-kappa, lag=1)
    return _describe(change, f"change of {LONG_NAMES[name]}", UNITS, f"{name}_dynamics", dropped)


def acceleration(ds: xr.Dataset, name: str = "weighted_score") -> xr.DataArray:
    """``|D_k| - |D_{k-1}|`` of a signal, lazily: a sharp rise, then a sharp fall, at an artifact.

    Returns
    -------
    xarray.DataArray, dims (run, step, [frame,] channel, y, x), float32
    """
    change = dynamics(ds, name)
    result = _combine(change, lag=1, magnitudes=True)
    dropped = change.attrs.get("dropped_steps", [])
    return _describe(result, "acceleration", UNITS, f"{name}_acceleration", dropped)


def log_snr_rate(ds: xr.Dataset, name: str = "weighted_score") -> xr.DataArray:
    """Dynamics per unit of log-SNR, lazily: comparable between step counts and schedulers.

    Returns
    -------
    xarray.DataArray, dims (run, step, [frame,] channel, y, x), float32
        Pairs of steps of which one has an infinite log-SNR are left out and named in
        ``attrs["dropped_steps"]``.
    """
    ds = with_channel(ds)
    finite = np.isfinite(_levels(ds, "log_snr")[0])
    used = ds.isel(step=np.flatnonzero(finite))
    dropped = ds["step"].values[~finite].tolist()
    change = dynamics(used, name)
    levels = used["log_snr"].values[used.sizes["step"] - change.sizes["step"] - 1 :]
    rate = _combine(change, before=1.0 / np.abs(np.diff(levels)))
    return _describe(
        rate, f"{change.attrs['long_name']} per log-SNR", UNITS, f"{name}_rate", dropped
    )


def trajectory_variance(ds: xr.Dataset, *, last: int | None = None) -> xr.DataArray:
    """Variance of predicted x0 over the last steps, lazily (arXiv:2406.09358).

    Parameters
    ----------
    last : int, optional
        Number of steps; all of them by default.

    Returns
    -------
    xarray.DataArray, dims (run, [frame,] channel, y, x), float32
    """
    ds = with_channel(ds)
    check_images(ds)
    x0 = recorded(ds, "x0")
    result = xr.apply_ufunc(
        partial(kernels.trajectory_variance, last=last),
        x0.chunk(step=-1) if x0.chunks else x0,
        input_core_dims=[("step", *_PIXEL)],
        output_core_dims=[_PIXEL],
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    return _describe(result, "trajectory variance", f"({UNITS})²", "trajectory_variance")


def norm(ds: xr.Dataset, name: str = "weighted_score") -> xr.DataArray:
    """Root mean square of a signal over pixels and channels, by run and step, lazily.

    Returns
    -------
    xarray.DataArray, dims (run, step[, frame]), float32
    """
    field = signal(ds, name)
    check_images(ds)
    result = xr.apply_ufunc(
        kernels.root_mean_square,
        field,
        input_core_dims=[_PIXEL],
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    dropped = field.attrs.get("dropped_steps", [])
    return _describe(result, f"norm of {LONG_NAMES[name]}", UNITS, f"{name}_norm", dropped)


def sample(ds: xr.Dataset) -> xr.DataArray:
    """Sample entering each step, ``x = alpha * x0 + sigma * eps``, lazily.

    Returns
    -------
    xarray.DataArray, dims (run, step, [frame,] channel, y, x), float32
        Right to the precision of the recorded fp16 numbers.
    """
    x0, eps = (recorded(ds, name).astype(np.float32) for name in ("x0", "eps"))
    alpha, sigma = (ds[name].astype(np.float32) for name in ("alpha", "sigma"))
    mixed = (alpha * x0 + sigma * eps).transpose(*x0.dims)
    return _describe(mixed, "sample x", UNITS, "sample_at_step")


def regular_steps(ds: xr.Dataset) -> tuple[xr.Dataset, list[int]]:
    """Leave out the singular first steps (alpha = 0), where the weighted score is infinite.

    Returns
    -------
    xarray.Dataset
        The steps with a finite weighted score.
    list of int
        The steps left out.
    """
    first = kernels.first_regular_step(_levels(ds, "alpha")[0])
    return ds.isel(step=slice(first, None)), ds["step"].values[:first].tolist()


def recorded_steps(ds: xr.Dataset) -> int:
    """Number of steps of a whole run, of which a selection may hold only some.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them, or a selection of their steps.
    """
    return int(ds["step"].attrs.get("recorded", ds["step"].values.max() + 1))


def left_out(steps: Iterable[int]) -> dict[str, Any]:
    """Attributes that say which steps a result leaves out, and why; none where it has all.

    Parameters
    ----------
    steps : iterable of int
        Steps with a singular noise level.

    Returns
    -------
    dict
        ``dropped_steps`` and ``note``, or nothing.
    """
    names = [int(step) for step in steps]
    if not names:
        return {}
    return {
        "dropped_steps": names,
        "note": f"steps {names} are left out: a noise level there is singular (alpha or sigma is "
        "zero), so the signal or its rate is infinite",
    }


def check_signal(name: str) -> Signal:
    """The name of a signal, or an error that lists them.

    Parameters
    ----------
    name : str
        What was asked for.

    Raises
    ------
    InputError
        When there is no such signal.
    """
    if name not in SIGNALS:
        raise InputError(f"no signal {name!r}; choose one of {', '.join(SIGNALS)}")
    return name


_PIXEL = ("channel", "y", "x")


def recorded(ds: xr.Dataset, name: str) -> xr.DataArray:
    """A recorded variable, or an error that says what the runs hold.

    Parameters
    ----------
    name : str
        ``eps``, ``x0``, ``sample``, ...

    Raises
    ------
    InputError
        When it was not recorded.
    """
    if name not in ds.data_vars:
        raise InputError(
            f"this needs the recorded variable {name!r}; the runs hold "
            f"{', '.join(map(str, ds.data_vars)) or 'none'}. Record with it among the fields"
        )
    variable = ds[name]
    return variable.drop_vars([n for n in variable.coords if n in _PIXEL])


def _levels(ds: xr.Dataset, *names: str) -> list[npt.NDArray[np.float64]]:
    """Noise levels of the steps as plain arrays."""
    missing = [name for name in names if name not in ds.variables]
    if missing:
        raise InputError(
            f"the runs hold no noise levels {', '.join(missing)}; open them with open_runs"
        )
    return [np.asarray(ds[name].values, np.float64) for name in names]


def _combine(
    array: xr.DataArray,
    *,
    before: npt.NDArray[np.float64] | None = None,
    after: npt.NDArray[np.float64] | None = None,
    lag: int = 0,
    magnitudes: bool = False,
) -> xr.DataArray:
    """Steps times factors, or differences of neighbours, lazily (`signals.stepwise.combine`)."""
    from asced_analysis.signals import windows  # noqa: F401  (xarray's windows look at ours)
    from asced_analysis.signals.stepwise import combine

    steps = array.sizes["step"]
    if steps <= lag:
        raise TooFewStepsError(
            f"{steps} step{'s' * (steps != 1)} found; expected at least {lag + 1}"
        )
    ones, axis = np.ones(steps), array.dims.index("step")
    factors = (ones if before is None else before, ones if after is None else after)
    data = combine(array.data, *factors, lag, axis, magnitudes=magnitudes)
    later = {n: c[lag:] for n, c in array.coords.items() if "step" in c.dims}
    kept = {n: c for n, c in array.coords.items() if "step" not in c.dims}
    return xr.DataArray(data, {**kept, **later}, array.dims)


def _describe(
    array: xr.DataArray, long_name: str, units: str, name: str, dropped: Sequence[int] = ()
) -> xr.DataArray:
    """Name an array, its units, and the steps that were left out."""
    named = array.rename(name)
    named.attrs = {"long_name": long_name, "units": units, **left_out(dropped)}
    return named
