"""Detection learnt from outcomes: which dynamics foretell a locally unrealistic end.

A small convolutional network turns maps of log dynamics, predicted x0 and eps so far into a map of
how unrealistic each place will end up; a linear model on per-step statistics (and the map) scores
the run. Both were learnt from how recorded runs ended; the level is conformal all the same. The
network runs as array products, so loop and store share this one kernel, with or without torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import array_api_compat
import numpy as np
import numpy.typing as npt

from asced_analysis.detection import calibrated
from asced_analysis.detection.calibrated import enlarge, log_change, pool, pooling_factor
from asced_analysis.detection.log_snr_grid import GridSignal, GridState
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.thresholds import Thresholds

Floats = npt.NDArray[np.float32]

MOST_SNAPSHOT_CHANNELS = 16
LIMIT = 3.0


@dataclass(frozen=True)
class Parameters:
    """What the model looks at and how its map becomes a mask.

    Attributes
    ----------
    resolution : int
        No side of the map is longer than this.
    floor : float
        Added to a change before the logarithm, in units of the data.
    inputs : str
        `dynamics`, `snapshot` (predicted x0 and eps at the window's end) or `both`.
    share : float
        Share of the image that the mask of a flagged run covers.
    coefficients : tuple of float
        Of the run score: intercept first, then one a statistic (see `run_statistics`), then two
        for the mean and the upper decile of the predicted map.
    """

    resolution: int = 16
    floor: float = 2e-3
    inputs: Literal["dynamics", "snapshot", "both"] = "both"
    share: float = 0.12
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check names and sizes."""
        if self.inputs not in ("dynamics", "snapshot", "both"):
            raise InputError(f"inputs {self.inputs!r} must be dynamics, snapshot or both")
        if self.resolution < 4 or not 0 < self.share <= 1 or self.floor <= 0:
            raise InputError(f"resolution, share or floor makes no sense: {self}")


@dataclass(frozen=True)
class State:
    """What is kept between steps: maps of the fixed grid's cells, and the last eps."""

    grid: GridState
    shape: tuple[int, int]
    cells: tuple[Any, ...] = ()
    eps: Any = None


@dataclass(frozen=True)
class Stream:
    """The learnt detector for one sampler.

    Attributes
    ----------
    parameters : Parameters
    signal : GridSignal
        Of predicted x0.
    location, scale : array, shape (cell,)
        The population's, of the log change.
    layers : tuple of (weight (out, in, 3, 3), bias (out,))
        Of the network.
    """

    parameters: Parameters
    signal: GridSignal
    location: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    layers: tuple[tuple[Floats, Floats], ...] = ()

    @property
    def first_step(self) -> int:
        """First step that is looked at."""
        return self.signal.first_step

    @property
    def last_step(self) -> int:
        """Step after which the window is complete."""
        return self.signal.last_step

    def needs(self) -> tuple[str, ...]:
        """Which of ``eps`` and ``x0`` `update` looks at."""
        return ("eps", "x0")

    def start(self, shape: Sequence[int]) -> State:
        """Begin with samples of shape ``(batch, channel, y, x)``."""
        return State(GridState(), (int(shape[-2]), int(shape[-1])))

    def update(self, state: State, step: int, *, eps: Any = None, x0: Any = None) -> State:
        """Take in one step; arrays of shape ``(batch, channel, y, x)``."""
        grid, changes = self.signal.advance(state.grid, step, x0=x0)
        maps = calibrated.Parameters(
            resolution=self.parameters.resolution, floor=self.parameters.floor, blur=0.0
        )
        cells = list(state.cells)
        for cell, change in changes:
            size = log_change(change, maps)
            cells.append((size - float(self.location[cell])) * (1 / float(self.scale[cell])))
        kept = eps if step == self.last_step else state.eps
        return replace(state, grid=grid, cells=tuple(cells), eps=kept)

    def inputs(self, state: State) -> tuple[Any, Any]:
        """Channels for the network, shape (batch, channel, y, x), and run statistics."""
        if len(state.cells) < len(self.location) or state.eps is None:
            raise InputError("the window is not complete yet; feed steps up to last_step first")
        xp = array_api_compat.array_namespace(state.grid.at_grid)
        dynamics = xp.stack(list(state.cells), axis=1)
        x0 = xp.clip(state.grid.at_grid, -LIMIT, LIMIT)
        snapshot = xp.concat(
            [
                snapshot_channels(x0, self.parameters.resolution),
                snapshot_channels(xp.astype(state.eps, xp.float32), self.parameters.resolution),
            ],
            axis=1,
        )
        chosen = {
            "dynamics": [dynamics],
            "snapshot": [snapshot],
            "both": [dynamics, snapshot],
        }[self.parameters.inputs]
        channels = chosen[0] if len(chosen) == 1 else xp.concat(chosen, axis=1)
        return channels, run_statistics(channels)

    def predict(self, state: State) -> tuple[Any, Any]:
        """Predicted map of log local distance, shape (batch, y, x), and run score, (batch,)."""
        channels, statistics = self.inputs(state)
        xp = array_api_compat.array_namespace(channels)
        device = array_api_compat.device(channels)
        predicted = convolve(channels, self.layers)[:, 0, :, :]
        summary = xp.concat([statistics, map_summary(predicted)], axis=1)
        weights = np.asarray(self.parameters.coefficients, dtype=np.float32)
        if weights.shape != (1 + summary.shape[1],):
            raise InputError(
                f"the run model has {weights.size} coefficients, expected {1 + summary.shape[1]}"
            )
        slopes = xp.asarray(weights[1:], device=device)
        return predicted, xp.matmul(summary, slopes) + float(weights[0])

    def detect(self, state: State, level: float) -> tuple[Any, Any, Any]:
        """Mask, score and flag of each run at a level (see `streaming.Detection`)."""
        predicted, score = self.predict(state)
        flagged = score > level
        mask = worst_places(predicted, self.parameters.share) & flagged[:, None, None]
        return enlarge(mask, *state.shape), score, flagged


def artifact_mask(predicted: Any, /, *, share: float = 0.12) -> Any:
    """Places that are foretold to end worst.

    Parameters
    ----------
    predicted : array, shape (..., y, x)
        Predicted log local distance.
    share : float
        Share of the places to mark.

    Returns
    -------
    array, bool, shape (..., y, x)

    Examples
    --------
    >>> import numpy as np
    >>> from asced_analysis.detection import outcome
    >>> predicted = np.zeros((16, 16), np.float32)
    >>> predicted[4:8, 4:8] = 1
    >>> outcome.artifact_mask(predicted, share=0.05)[5, 5].item()
    True
    """
    xp = array_api_compat.array_namespace(predicted)
    flat = xp.reshape(predicted, (-1, *predicted.shape[-2:]))
    return xp.reshape(worst_places(flat, share), predicted.shape)


def worst_places(predicted: Any, share: float) -> Any:
    """The given share of the places of each map with the largest values."""
    xp = array_api_compat.array_namespace(predicted)
    flat = xp.reshape(predicted, (predicted.shape[0], -1))
    count = max(1, round(share * flat.shape[1]))
    limit = xp.sort(flat, axis=1)[:, flat.shape[1] - count]
    return predicted >= limit[:, None, None]


def snapshot_channels(values: Any, resolution: int) -> Any:
    """A picture as channels at map resolution.

    Pixels of a map cell become channels of their own while there are few enough of them;
    otherwise a cell is told by its mean and standard deviation over pixels and channels.
    """
    xp = array_api_compat.array_namespace(values)
    batch, channels, height, width = values.shape
    factor = pooling_factor(height, width, resolution)
    if (
        channels * factor**2 <= MOST_SNAPSHOT_CHANNELS
        and height % factor == 0
        and width % factor == 0
    ):
        blocks = xp.reshape(
            values, (batch, channels, height // factor, factor, width // factor, factor)
        )
        moved = xp.permute_dims(blocks, (0, 1, 3, 5, 2, 4))
        return xp.reshape(moved, (batch, -1, height // factor, width // factor))
    mean = pool(values, resolution)
    square = pool(values * values, resolution)
    return xp.stack([mean, xp.sqrt(xp.clip(square - mean * mean, 0.0, None))], axis=1)


def run_statistics(channels: Any) -> Any:
    """Mean, standard deviation and largest value of every channel, shape (batch, 3 * channel)."""
    xp = array_api_compat.array_namespace(channels)
    return xp.concat(
        [
            xp.mean(channels, axis=(-2, -1)),
            xp.std(channels, axis=(-2, -1)),
            xp.max(channels, axis=(-2, -1)),
        ],
        axis=1,
    )


def map_summary(predicted: Any) -> Any:
    """Mean and upper decile of a predicted map, shape (batch, 2)."""
    xp = array_api_compat.array_namespace(predicted)
    flat = xp.reshape(predicted, (predicted.shape[0], -1))
    ordered = xp.sort(flat, axis=1)
    return xp.stack([xp.mean(flat, axis=1), ordered[:, int(0.9 * flat.shape[1])]], axis=1)


def convolve(channels: Any, layers: Sequence[tuple[Floats, Floats]]) -> Any:
    """Run 3 x 3 convolutions with zero padding and ReLU between them, on any namespace.

    Parameters
    ----------
    channels : array, shape (batch, in, y, x)
    layers : sequence of (weight (out, in, 3, 3), bias (out,))

    Returns
    -------
    array, shape (batch, out, y, x)
    """
    xp = array_api_compat.array_namespace(channels)
    device = array_api_compat.device(channels)
    batch, _, height, width = channels.shape
    values = channels
    for number, (weight, bias) in enumerate(layers):
        padded = _pad_with_zeros(xp, values)
        # nine shifted copies side by side make one matrix product of the whole layer
        shifted = xp.concat(
            [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)],
            axis=1,
        )
        flat = np.ascontiguousarray(weight.transpose(0, 2, 3, 1).reshape(weight.shape[0], -1))
        product = xp.matmul(
            xp.asarray(flat, device=device),
            xp.reshape(shifted, (batch, flat.shape[1], height * width)),
        )
        values = xp.reshape(
            product + xp.asarray(np.array(bias[:, None]), device=device),
            (batch, flat.shape[0], height, width),
        )
        if number < len(layers) - 1:
            values = xp.clip(values, 0.0, None)
    return values


def stream_of(
    thresholds: Thresholds,
    *,
    alpha: Iterable[float],
    sigma: Iterable[float],
    log_snr: Iterable[float],
) -> Stream:
    """The stream that thresholds of this variant describe, weights included."""
    given = dict(thresholds.parameters)
    given["coefficients"] = tuple(given["coefficients"])
    levels = thresholds.levels
    from asced_analysis.detection.streaming import table

    grid = GridSignal("predicted_x0", levels.log_snr, tuple(alpha), tuple(sigma), tuple(log_snr))
    location, scale = table(levels.location), table(levels.scale)
    if location.shape != (len(levels.log_snr) - 1,) or scale.shape != location.shape:
        raise InputError("outcome needs one location and scale a grid cell")
    layers = layers_from_bytes(thresholds.weights_bytes())
    return Stream(Parameters(**given), grid, location, scale, layers)


def layers_to_bytes(layers: Sequence[tuple[Floats, Floats]]) -> bytes:
    """Layers as the content of a safetensors file."""
    from safetensors.numpy import save

    tensors = {}
    for number, (weight, bias) in enumerate(layers):
        tensors[f"layers.{number}.weight"] = np.ascontiguousarray(weight, dtype=np.float32)
        tensors[f"layers.{number}.bias"] = np.ascontiguousarray(bias, dtype=np.float32)
    return bytes(save(tensors))


def layers_from_bytes(content: bytes) -> tuple[tuple[Floats, Floats], ...]:
    """Layers from the content of a safetensors file, checked.

    Raises
    ------
    InputError
        Where the file isn't what `layers_to_bytes` writes.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors: Mapping[str, Any] = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the weights file is damaged: {error}") from error
    layers = []
    channels = None
    for number in range(len(tensors) // 2):
        weight = tensors.get(f"layers.{number}.weight")
        bias = tensors.get(f"layers.{number}.bias")
        if (
            weight is None
            or bias is None
            or weight.ndim != 4
            or weight.shape[2:] != (3, 3)
            or bias.shape != weight.shape[:1]
            or (channels is not None and weight.shape[1] != channels)
            or not (np.isfinite(weight).all() and np.isfinite(bias).all())
        ):
            raise InputError(f"the weights file is damaged at layer {number}")
        channels = weight.shape[0]
        layers.append((weight, bias))
    if channels != 1:
        raise InputError("the weights file holds no network with one map at its end")
    return tuple(layers)


def _pad_with_zeros(xp: Any, values: Any) -> Any:
    """One row and column of zeros on every side."""
    for axis in (-2, -1):
        shape = list(values.shape)
        shape[axis] = 1
        edge = xp.zeros(tuple(shape), dtype=values.dtype, device=array_api_compat.device(values))
        values = xp.concat([edge, values, edge], axis=axis)
    return values
