"""Training for calibration by outcome: the map's network with torch, the run score with ridge."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.detection import outcome
from asced_analysis.detection.outcome_network import Layers, fold, layout_size, run_network

Floats = npt.NDArray[np.float32]

# At half resolution with a first layer of 1 x 1: 0.8 million multiplications a run, 0.8 % of one
# evaluation of `fashion`. Five layers of 32 channels at full resolution take 8 % and know little
# more (docs/thresholds.md).
HIDDEN = 24
LAYERS = 4
RIDGES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
"""Strengths of the run model, of which leaving runs out chooses one: it may see more than runs."""
ROUNDING = 1e-5
"""A number that varies by less, as a share of itself, is the same in all runs."""
FOLDS = 5
AT_ONCE = 256


@dataclass(frozen=True)
class Examples:
    """What the learner sees: maps of 16 x 16 of a bounded number of runs, 20 kB a run.

    Attributes
    ----------
    rows : array, shape (run,)
    channels : array, shape (run, channel, y, x)
        Inputs up to the window's end.
    statistics : array, shape (run, statistic)
    target : array, shape (run, y, x)
        How badly each place ended.
    final : array, shape (run, y, x)
        Final sample at map resolution, for matching content.
    goal : array, shape (run,)
        How badly each run ended, by who teaches whole runs.
    content : mapping of str to array, shape (run,)
        What the finished pictures show, and the energy of the start.
    whose : int array, shape (run,), optional
        Which prompt (or seed) each is of; by default each is of its own.
    """

    rows: npt.NDArray[np.intp]
    channels: Floats
    statistics: Floats
    target: Floats
    final: Floats
    goal: Floats
    content: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    whose: npt.NDArray[np.intp] | None = None

    @property
    def units(self) -> npt.NDArray[np.intp]:
        """Number of the prompt, seed or run that each is of, from 0."""
        whose = self.rows if self.whose is None else self.whose
        found = np.unique(whose, return_inverse=True)[1]
        return found if found.max() else np.arange(len(self.rows))


def learn(
    stream: outcome.Stream,
    examples: Examples,
    *,
    epochs: int = 40,
    seed: int = 0,
    hidden: int = HIDDEN,
    depth: int = LAYERS,
) -> outcome.Stream:
    """Train the map, and fit the run model on what maps say of runs that they were not trained on.

    Two maps are trained on a half each, in as many steps as the one that is kept, and each is asked
    about the other half (stacking). The map that is kept is trained on all examples.
    """
    channels, target, units = examples.channels, examples.target, examples.units
    how = {"seed": seed, "hidden": hidden, "depth": depth}
    layers = train_map(channels, target, epochs=epochs, **how)
    given = stream.parameters
    predicted = np.zeros(target.shape, np.float32)
    if given.inputs != "activations":
        halves = halves_of(units, seed)
        for own, other in (halves, halves[::-1]):
            half = train_map(channels[other], target[other], epochs=2 * epochs, **how)
            predicted[own] = maps_of(channels[own], half)
        size = layout_size(predicted.shape[-2:])
        layout = np.asarray(examples.statistics[:, :size], np.float64)
        location, scale = layout.mean(axis=0), layout.std(axis=0)
        given = replace(
            given,
            layout_location=tuple(location.tolist()),
            layout_scale=tuple(np.where(varies(location, scale), scale, 1.0).tolist()),
        )
    found = []
    for products in (False, True) if given.layout_location else (False,):
        tried = replace(stream, layers=layers, parameters=replace(given, products=products))
        summary = tried.summary(examples.statistics, predicted)
        error, coefficients = fit_run_model(summary, examples.goal, units)
        parameters = replace(tried.parameters, coefficients=tuple(coefficients))
        found.append((error, replace(tried, parameters=parameters)))
    return min(found, key=lambda one: one[0])[1]


def halves_of(
    units: npt.NDArray[np.intp], seed: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Places of one half and of the other, at random; those of one prompt stay together."""
    order = np.random.default_rng(seed).permutation(int(units.max()) + 1)
    first = np.isin(units, order[: len(order) // 2])
    return np.flatnonzero(first), np.flatnonzero(~first)


def varies(mean: npt.NDArray[np.float64], deviation: npt.NDArray[np.float64]) -> Any:
    """Whether a number differs between runs by more than rounding."""
    return deviation > ROUNDING * np.maximum(0.1, np.abs(mean))


def maps_of(channels: Floats, layers: Layers) -> Floats:
    """Maps of the network, a few hundred runs at a time."""
    parts = range(0, len(channels), AT_ONCE)
    return np.concatenate([run_network(channels[part : part + AT_ONCE], layers) for part in parts])


def fit_run_model(
    summary: Floats, goal: npt.NDArray[Any], units: npt.NDArray[np.intp]
) -> tuple[float, list[float]]:
    """Ridge regression on standardised statistics; intercept first, scales folded in.

    Of `RIDGES` it takes the one that predicts runs best by fits without them, and without the
    others of their prompt. What does not vary has a slope of 0.

    Returns
    -------
    error : float
        Mean squared error of these predictions.
    coefficients : list of float
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold

    wide = np.asarray(summary, np.float64)
    center, deviation = wide.mean(axis=0), wide.std(axis=0)
    spread = np.where(varies(center, deviation), deviation, np.inf)
    each, count = wide - center, int(units.max()) + 1
    folds = None
    if count < len(units):
        folds = list(GroupKFold(min(FOLDS, count)).split(each, groups=units))
    model = RidgeCV(alphas=RIDGES, cv=folds, scoring="neg_mean_squared_error")
    model.fit(each / spread, np.asarray(goal, np.float64))
    slopes = model.coef_ / spread
    intercept = float(model.intercept_ - slopes @ center)
    return -float(model.best_score_), [intercept, *(float(slope) for slope in slopes)]


def train_map(
    channels: Floats,
    target: Floats,
    *,
    epochs: int,
    seed: int,
    hidden: int = HIDDEN,
    depth: int = LAYERS,
    batch_size: int = 32,
) -> tuple[tuple[Floats, Floats], ...]:
    """Train the network; squared error of the log distance.

    Parameters
    ----------
    channels : array, shape (run, channel, y, x)
    target : array, shape (run, y, x)
    epochs, seed, batch_size : int
    hidden, depth : int
        Channels and layers at half resolution; the first layer is 1 x 1, the others 3 x 3.

    Returns
    -------
    tuple of (weight, bias)
        As `asced_analysis.detection.outcome_network.run_network` takes them.
    """
    import torch

    inputs, goals = torch.from_numpy(fold(channels)), torch.from_numpy(fold(target[:, None]))
    shift = float(goals.mean())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = [inputs.shape[1], *[hidden] * (depth - 1), 4]
        network = torch.nn.Sequential()
        for number, (before, after) in enumerate(itertools.pairwise(widths)):
            side = 1 if number == 0 else 3
            network.append(torch.nn.Conv2d(before, after, side, padding=side // 2))
            if number < depth - 1:
                network.append(torch.nn.ReLU())
        steps = epochs * max(1, -(-len(inputs) // batch_size))
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        for _ in range(epochs):
            order = torch.randperm(len(inputs))
            for start in range(0, len(inputs), batch_size):
                rows = order[start : start + batch_size]
                loss = torch.mean((network(inputs[rows]) - (goals[rows] - shift)) ** 2)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
    convolutions = [layer for layer in network if isinstance(layer, torch.nn.Conv2d)]
    layers = [
        (layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy())
        for layer in convolutions
        if layer.bias is not None
    ]
    layers[-1] = (layers[-1][0], layers[-1][1] + np.float32(shift))
    return tuple(layers)
