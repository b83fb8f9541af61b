"""The network behind `outcome`: its inputs, its layers as array products, its weights as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import array_api_compat
import numpy as np
import numpy.typing as npt

from asced_analysis.detection.change_maps import Parameters, log_change, pool, pooling_factor
from asced_stores.errors import InputError

Floats = npt.NDArray[np.float32]
Layers = Sequence[tuple[Floats, Floats]]

MOST_SNAPSHOT_CHANNELS = 16
LIMIT = 3.0
"""Predicted x0 is clipped to what lies within this."""
BLOCKS = 4
"""A side of a picture is told in so many parts."""
FAR = 3.0
"""Standard deviations beyond which what a picture shows counts as no further off."""


def snapshot_channels(values: Any, resolution: int, height: int | None = None) -> Any:
    """A picture as channels at map resolution.

    Pixels of a map cell become channels of their own while there are few enough of them;
    otherwise a cell is told by its mean and standard deviation over pixels and channels.

    Parameters
    ----------
    values : array, shape (batch, channel, y, x)
    resolution : int
    height : int, optional
        Of the whole picture, where these are some of its rows, from one that a cell begins with.
    """
    xp = array_api_compat.array_namespace(values)
    channels, rows, width = values.shape[-3:]
    height = height or rows
    factor = pooling_factor(height, width, resolution)
    if _keeps_pixels(channels, height, width, factor):
        return pixels_as_channels(values, factor)
    mean = pool(values, resolution, factor)
    square = pool(values * values, resolution, factor)
    return xp.stack([mean, xp.sqrt(xp.clip(square - mean * mean, 0.0, None))], axis=1)


def snapshot_size(shape: Sequence[int], resolution: int) -> int:
    """How many channels `snapshot_channels` makes of a picture of shape (channel, y, x)."""
    channels, height, width = shape
    factor = pooling_factor(height, width, resolution)
    return channels * factor**2 if _keeps_pixels(channels, height, width, factor) else 2


def _keeps_pixels(channels: int, height: int, width: int, factor: int) -> bool:
    """Whether the pixels of a map cell become channels of their own."""
    whole = height % factor == 0 and width % factor == 0
    return whole and channels * factor**2 <= MOST_SNAPSHOT_CHANNELS


def lookahead_channels(lookahead_x0: Any, x0: Any, maps: Parameters) -> Any:
    """What a lookahead says: its predicted x0, what that changed, and the change's logarithm.

    Parameters
    ----------
    lookahead_x0, x0 : array, shape (batch, channel, y, x)
    maps : change_maps.Parameters
        How changes are pooled.
    """
    xp = array_api_compat.array_namespace(x0)
    known = xp.clip(xp.astype(lookahead_x0, xp.float32), -LIMIT, LIMIT)
    change = known - xp.clip(x0, -LIMIT, LIMIT)
    return xp.concat(
        [
            snapshot_channels(known, maps.resolution),
            snapshot_channels(change, maps.resolution),
            log_change(change, maps)[:, None, :, :],
        ],
        axis=1,
    )


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


def layout_statistics(picture: Any) -> Any:
    """What a picture shows, and where, shape (batch, `layout_size`).

    Mean, standard deviation, largest and least value, mean absolute difference of neighbours (along
    y, along x), and of the picture from its mirror image (turned along y, along x), each averaged
    over the channels; then the mean of all channels in `BLOCKS` by `BLOCKS` blocks, row by row.

    Parameters
    ----------
    picture : array, shape (batch, channel, y, x)
    """
    xp = array_api_compat.array_namespace(picture)
    both = (-2, -1)
    found = [
        xp.mean(picture, axis=both),
        xp.std(picture, axis=both),
        xp.max(picture, axis=both),
        xp.min(picture, axis=both),
    ]
    for axis in both:
        size = picture.shape[axis]
        later, earlier = (_part(picture, axis, part) for part in (slice(1, size), slice(size - 1)))
        change = later - earlier if size > 1 else 0.0 * picture
        found.append(xp.mean(xp.abs(change), axis=both))
    mirrored = (xp.flip(picture, axis=axis) for axis in both)
    found += [xp.mean(xp.abs(picture - other), axis=both) for other in mirrored]
    shown = [xp.mean(one, axis=1) for one in found]
    mean = xp.mean(picture, axis=1)
    shown += [
        xp.mean(mean[:, rows, columns], axis=both)
        for rows in _blocks(mean.shape[-2])
        for columns in _blocks(mean.shape[-1])
    ]
    return xp.stack(shown, axis=1)


def layout_size(shape: Sequence[int]) -> int:
    """How many numbers `layout_statistics` makes of a picture of so many (rows, columns)."""
    rows, columns = shape
    return 8 + min(BLOCKS, rows) * min(BLOCKS, columns)


def layout_terms(layout: Any, location: Any, scale: Any, *, products: bool) -> Any:
    """Layout in units of the population, within `FAR`, and the products of every two of it.

    Parameters
    ----------
    layout : array, shape (batch, n)
        Of `layout_statistics`.
    location, scale : array, shape (n,)
        Mean and standard deviation over the runs that are learnt from.
    products : bool
        Whether the products follow, of number 0 with 0, 1 and so on, then of 1 with 1.
    """
    xp = array_api_compat.array_namespace(layout)
    terms = xp.clip((layout - location) / scale, -FAR, FAR)
    if not products:
        return terms
    each = range(layout.shape[1])
    return xp.concat([terms, *(terms[:, one:] * terms[:, one : one + 1] for one in each)], axis=1)


def _part(values: Any, axis: int, part: slice) -> Any:
    """Some of the rows (axis -2) or columns (-1)."""
    return values[..., part, :] if axis == -2 else values[..., part]


def _blocks(size: int) -> list[slice]:
    """A side in `BLOCKS` parts as equal as can be."""
    parts = min(BLOCKS, size)
    return [slice(one * size // parts, (one + 1) * size // parts) for one in range(parts)]


def map_summary(predicted: Any) -> Any:
    """Mean, upper decile and log mean exponential of a predicted map, shape (batch, 3)."""
    xp = array_api_compat.array_namespace(predicted)
    flat = xp.reshape(predicted, (predicted.shape[0], -1))
    ordered = xp.sort(flat, axis=1)
    decile = ordered[:, int(0.9 * flat.shape[1])]
    return xp.stack([xp.mean(flat, axis=1), decile, xp.log(xp.mean(xp.exp(flat), axis=1))], axis=1)


def run_network(channels: Any, layers: Layers) -> Any:
    """Map of a small convolutional network: ReLU between its layers, zero padding.

    Parameters
    ----------
    channels : array, shape (batch, in, y, x)
    layers : sequence of (weight (out, in, k, k), bias (out,)), k of 1 or 3
        A last layer of four outputs means a network at half resolution: 2 x 2 places become
        channels before the first layer, and its outputs become 2 x 2 places again (channels count
        the original channel first, then row, then column; odd sizes repeat their edge). That sees
        twice as far at a quarter of the cost.

    Returns
    -------
    array, shape (batch, y, x)
    """
    if layers[-1][0].shape[0] == 1:
        return convolve(channels, layers)[:, 0, :, :]
    height, width = channels.shape[-2:]
    small = convolve(fold(channels), layers)
    xp = array_api_compat.array_namespace(small)
    batch, _, rows, columns = small.shape
    blocks = xp.permute_dims(xp.reshape(small, (batch, 2, 2, rows, columns)), (0, 3, 1, 4, 2))
    return xp.reshape(blocks, (batch, 2 * rows, 2 * columns))[:, :height, :width]


def convolve(channels: Any, layers: Layers) -> Any:
    """Run convolutions with zero padding and ReLU between them, on any namespace.

    Parameters
    ----------
    channels : array, shape (batch, in, y, x)
    layers : sequence of (weight (out, in, k, k), bias (out,)), k of 1 or 3

    Returns
    -------
    array, shape (batch, out, y, x)
    """
    values = channels
    for number, (weight, bias) in enumerate(layers):
        if array_api_compat.is_torch_array(values):
            xp = array_api_compat.array_namespace(values)
            place = {"dtype": values.dtype, "device": values.device}
            values = xp.conv2d(  # torch's own, four times as fast as the product below
                values,
                xp.asarray(weight, **place),
                xp.asarray(bias, **place),
                padding=weight.shape[-1] // 2,
            )
        else:
            values = _convolve_once(values, weight, bias)
        if number < len(layers) - 1:
            values = values.clip(0.0) if hasattr(values, "clip") else _positive(values)
    return values


def _convolve_once(values: Any, weight: Floats, bias: Floats) -> Any:
    """One layer as one matrix product of shifted copies side by side."""
    xp = array_api_compat.array_namespace(values)
    device = array_api_compat.device(values)
    batch, _, height, width = values.shape
    side = weight.shape[-1]
    if side > 1:
        padded = _pad_with_zeros(xp, values)
        values = xp.concat(
            [padded[:, :, i : i + height, j : j + width] for i in range(side) for j in range(side)],
            axis=1,
        )
    flat = np.ascontiguousarray(weight.transpose(0, 2, 3, 1).reshape(weight.shape[0], -1))
    product = xp.matmul(
        xp.asarray(flat, device=device),
        xp.reshape(values, (batch, flat.shape[1], height * width)),
    )
    return xp.reshape(
        product + xp.asarray(np.array(bias[:, None]), device=device),
        (batch, flat.shape[0], height, width),
    )


def _positive(values: Any) -> Any:
    """ReLU for namespaces whose arrays have no clip of their own."""
    return array_api_compat.array_namespace(values).clip(values, 0.0, None)


def fold(channels: Any) -> Any:
    """2 x 2 places as channels, shape (batch, 4 * channel, ceil(y / 2), ceil(x / 2))."""
    xp = array_api_compat.array_namespace(channels)
    if channels.shape[-2] % 2:
        channels = xp.concat([channels, channels[..., -1:, :]], axis=-2)
    if channels.shape[-1] % 2:
        channels = xp.concat([channels, channels[..., -1:]], axis=-1)
    return pixels_as_channels(channels, 2)


def pixels_as_channels(values: Any, factor: int) -> Any:
    """Square blocks as channels: (batch, c, y, x) to (batch, c * factor**2, y / f, x / f)."""
    xp = array_api_compat.array_namespace(values)
    batch, channels, height, width = values.shape
    rows, columns = height // factor, width // factor
    blocks = xp.reshape(values, (batch, channels, rows, factor, columns, factor))
    moved = xp.permute_dims(blocks, (0, 1, 3, 5, 2, 4))
    return xp.reshape(moved, (batch, channels * factor**2, rows, columns))


def layers_to_bytes(layers: Layers) -> bytes:
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
            or weight.shape[2:] not in ((1, 1), (3, 3))
            or bias.shape != weight.shape[:1]
            or (channels is not None and weight.shape[1] != channels)
            or not (np.isfinite(weight).all() and np.isfinite(bias).all())
        ):
            raise InputError(f"the weights file is damaged at layer {number}")
        channels = weight.shape[0]
        layers.append((weight, bias))
    if channels not in (1, 4):
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
