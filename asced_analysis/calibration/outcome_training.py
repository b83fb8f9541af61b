"""Training for calibration by outcome: the map's network with torch, the run score with ridge."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.detection import outcome
from asced_analysis.detection.outcome_network import fold, run_network

Floats = npt.NDArray[np.float32]

# At half resolution with a first layer of 1 x 1: 0.8 million multiplications a run, 0.8 % of one
# evaluation of `fashion`. Five layers of 32 channels at full resolution take 8 % and know little
# more (docs/thresholds.md).
HIDDEN = 24
LAYERS = 4
RIDGE = 30.0
RIDGES = (30.0, 100.0, 300.0, 1000.0, 3000.0)
"""For activations, of which there may be more than runs."""


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
    """

    rows: npt.NDArray[np.intp]
    channels: Floats
    statistics: Floats
    target: Floats
    final: Floats
    goal: Floats
    content: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)


def learn(
    stream: outcome.Stream,
    examples: Examples,
    *,
    epochs: int = 40,
    seed: int = 0,
    hidden: int = HIDDEN,
    depth: int = LAYERS,
) -> outcome.Stream:
    """Train the map on three quarters of the examples and the run model on all that remains.

    The run model sees the map's summary, so it must be fitted where the map was not trained.
    """
    held, used = parts_of(len(examples.rows), seed)
    layers = train_map(
        examples.channels[used],
        examples.target[used],
        epochs=epochs,
        seed=seed,
        hidden=hidden,
        depth=depth,
    )
    predicted = run_network(examples.channels[held], layers)
    many = stream.parameters.inputs in outcome.WITH_ACTIVATIONS
    summary = stream.summary(examples.statistics[held], predicted)
    coefficients = fit_run_model(summary, examples.goal[held], RIDGES if many else (RIDGE,))
    return replace(
        stream,
        layers=layers,
        parameters=replace(stream.parameters, coefficients=tuple(coefficients)),
    )


def parts_of(count: int, seed: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Places of the quarter that the run model is fitted on, and of the rest, for the map."""
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // 4], order[count // 4 :]


def fit_run_model(
    summary: Floats, goal: npt.NDArray[Any], strengths: Sequence[float] = (RIDGE,)
) -> list[float]:
    """Ridge regression on standardised statistics; intercept first, scales folded in.

    Of several strengths, the one that predicts runs best by a fit without them.
    """
    from sklearn.linear_model import Ridge, RidgeCV

    center, spread = summary.mean(axis=0), np.maximum(summary.std(axis=0), 1e-6)
    single = len(strengths) == 1
    model = Ridge(alpha=strengths[0]) if single else RidgeCV(alphas=list(strengths))
    model.fit((summary - center) / spread, goal)
    slopes = model.coef_ / spread
    intercept = float(model.intercept_ - slopes @ center)
    return [intercept, *(float(slope) for slope in slopes)]


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
