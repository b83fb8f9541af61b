"""Stores without a network: x0 that converges to a picture, and noise that agrees with it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.format.spec import FIELDS, TrajectorySpec, VariableSpec
from asced_stores.store import TrajectoryStore


def ddim_levels(steps: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Timestep, alpha and sigma of DDIM with 1000 linear betas and trailing spacing."""
    cumulative = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    timestep = np.round(np.arange(1000, 0, -1000 / steps)).astype(int) - 1
    product = cumulative[timestep]
    return timestep.astype(float), np.sqrt(product), np.sqrt(1 - product)


def synthetic_spec(
    *,
    steps: int = 10,
    shape: tuple[int, ...] = (1, 16, 16),
    checkpoints: tuple[int, ...] = (),
    fields: tuple[str, ...] = FIELDS,
    dtype: str = "float16",
    extra: tuple[VariableSpec, ...] = (),
    attributes: Mapping[str, Any] | None = None,
) -> TrajectorySpec:
    """Make the specification of a store as `synthetic_store` writes it."""
    timestep, alpha, sigma = ddim_levels(steps)
    return TrajectorySpec(
        sample_shape=shape,
        timestep=timestep.tolist(),
        alpha=alpha.tolist(),
        sigma=sigma.tolist(),
        checkpoints=checkpoints,
        image_shape=(shape[-2], shape[-1], shape[-3]),
        fields=fields,
        dtype=dtype,
        extra=extra,
        attributes={
            "scheduler_class": "DDIMScheduler",
            "scheduler_config": {"num_train_timesteps": 1000, "eta": 0.0},
            "prediction_type": "epsilon",
            "model_fingerprint": "synthetic",
            "pipeline": "synthetic",
            **(attributes or {}),
        },
    )


def synthetic_run(spec: TrajectorySpec, seed: int) -> dict[str, NDArray[Any]]:
    """Draw one run of deterministic DDIM, shapes as in the store without ``run``.

    Predicted x0 moves from a grey mean to a picture of smooth blobs; in one region it changes its
    mind in the middle of sampling.
    """
    rng = np.random.default_rng(seed)
    shape, steps = spec.sample_shape, spec.steps
    alpha, sigma = np.asarray(spec.alpha), np.asarray(spec.sigma)
    y, x = np.mgrid[0 : shape[-2], 0 : shape[-1]] / max(shape[-2:])
    picture = np.full(shape, -0.8)
    for _ in range(4):
        height, centre, width = rng.uniform(0.3, 1.5), rng.uniform(0, 1, 2), rng.uniform(0.08, 0.3)
        picture += height * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / width**2 / 2)
    picture = np.clip(picture, -1, 1)
    centre = rng.uniform(0.25, 0.75, 2)
    region = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 0.02)
    sample = sigma[0] * rng.standard_normal(shape) + alpha[0] * picture
    run: dict[str, list[NDArray[Any]]] = {"eps": [], "x0": [], "checkpoint_sample": []}
    x_init = sample
    for step in range(steps):
        progress = 1 / (1 + (sigma[step] / alpha[step]) ** 1.0)
        doubt = np.exp(-((progress - 0.45) ** 2) / 0.02) * region
        x0 = (progress**0.5) * picture - 0.4 * (1 - progress**0.5) - 0.5 * doubt
        x0 = x0 + 0.05 * (1 - progress) * rng.standard_normal(shape)
        if step == steps - 1:
            x0 = picture
        eps = (sample - alpha[step] * x0) / sigma[step]
        if step in spec.checkpoints:
            run["checkpoint_sample"].append(sample)
        run["eps"].append(eps)
        run["x0"].append(x0)
        last = step + 1 == steps
        sample = x0 if last else alpha[step + 1] * x0 + sigma[step + 1] * eps
    found: dict[str, NDArray[Any]] = {
        "eps": np.stack(run["eps"]).astype(spec.dtype),
        "x0": np.stack(run["x0"]).astype(spec.dtype),
        "x_init": x_init.astype("float32"),
        "sample": sample.astype("float32"),
        "image": np.moveaxis(_to_uint8(sample.reshape(-1, *shape[-3:])[0]), 0, -1),
    }
    if spec.checkpoints:
        found["checkpoint_sample"] = np.stack(run["checkpoint_sample"]).astype("float32")
    return found


def _to_uint8(sample: NDArray[Any]) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = ((np.clip(sample, -1, 1) + 1) * 127.5).round().astype(np.uint8)
    return levels


def synthetic_batch(
    spec: TrajectorySpec, runs: Sequence[int], *, seed: int = 0, failed: Sequence[int] = ()
) -> dict[str, NDArray[Any]]:
    """Draw the arrays of one batch; run ``i`` draws from ``seed + i``, failed ones end in NaN."""
    drawn = [synthetic_run(spec, seed + int(run)) for run in runs]
    names = [v.name for v in spec.variables]
    batch: dict[str, NDArray[Any]] = {}
    for variable in spec.variables:
        if variable.name in FIELDS:
            batch[variable.name] = np.stack([each[variable.name] for each in drawn])
        else:
            batch[variable.name] = np.zeros((len(drawn), *variable.shape), variable.dtype)
    for row, run in enumerate(runs):
        if run in failed:
            for name in ("sample", "eps", "x0"):
                if name in names:
                    batch[name][row] = np.nan
    return batch


def synthetic_store(
    path: str | os.PathLike[str],
    *,
    runs: int = 32,
    steps: int = 10,
    shape: tuple[int, ...] = (1, 16, 16),
    batch_size: int = 8,
    seed: int = 0,
    failed: Sequence[int] = (),
    planned: int | None = -1,
    batches: Sequence[int] | None = None,
    fsync: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    seal: bool = False,
    **spec_options: Any,
) -> TrajectoryStore:
    """Write a small store with plausible trajectories, without torch.

    Parameters
    ----------
    path : path or str
        Where.
    runs, steps, shape, batch_size, seed
        What; ``shape`` is ``(channel, y, x)`` or ``(frame, channel, y, x)``.
    failed : sequence of int
        Runs that end in NaN.
    planned : int or None
        Planned number of runs, by default ``runs``; None leaves it open.
    batches : sequence of int, optional
        Only these are written.
    fsync, storage_options, overwrite
        As in `TrajectoryStore.create`.
    seal : bool
        Seal it at the end.
    **spec_options
        ``checkpoints``, ``fields``, ``dtype``, ``extra``, ``attributes`` of `synthetic_spec`.

    Returns
    -------
    TrajectoryStore
    """
    spec = synthetic_spec(steps=steps, shape=shape, **spec_options)
    store = TrajectoryStore.create(
        path,
        spec,
        runs=runs if planned == -1 else planned,
        batch_size=batch_size,
        fsync=fsync,
        storage_options=storage_options,
        overwrite=overwrite,
    )
    scalars = {v.name: np.zeros(()) for v in spec.scalars}
    with store.writer(0, 1) as writer:
        for batch in writer.pending_batches() if batches is None else batches:
            first = batch * batch_size
            numbers = range(first, min(first + batch_size, runs))
            if not numbers:
                break
            arrays = synthetic_batch(spec, numbers, seed=seed, failed=failed)
            seeds = seed + np.arange(numbers.start, numbers.stop)
            writer.write_batch(batch, arrays, scalars={"seed": seeds, **scalars})
    return store.seal() if seal else store
