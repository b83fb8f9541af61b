"""Detection learnt from outcomes: which dynamics predict a locally unrealistic end.

A small convolutional network turns maps of log dynamics, predicted x0 and eps so far into a map of
how unrealistic each place will end up; a linear model on statistics of each step, the map and the
picture's layout scores the run. Both were learnt from how recorded runs ended; the level is
conformal all the same. The network runs as array products, so loop and store share this one kernel,
with or without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import array_api_compat
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from asced_analysis.compute.stepped import STEPS_HELD
from asced_analysis.detection import change_maps
from asced_analysis.detection.change_maps import enlarge, log_change
from asced_analysis.detection.log_snr_grid import GridSignal, GridState
from asced_analysis.detection.outcome_bands import maps_by_bands
from asced_analysis.detection.outcome_network import (
    LIMIT,
    Layers,
    layers_from_bytes,
    layout_size,
    layout_statistics,
    layout_terms,
    lookahead_channels,
    map_summary,
    run_network,
    run_statistics,
    snapshot_channels,
    snapshot_size,
)
from asced_analysis.detection.outcome_steps import ALGORITHM
from asced_analysis.detection.variant import Lookahead, Sampler, Variant, table
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.thresholds.document import Thresholds

WITH_ACTIVATIONS = ("activations", "all")
INPUTS = ("dynamics", "snapshot", "both", *WITH_ACTIVATIONS)


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
        `dynamics`, `snapshot` (predicted x0 and eps at the window's end), `both`, `activations`
        (those of the window's end alone; the map is learnt from the snapshot) or
        `all`.
    share : float
        Share of the image that the mask of a flagged run covers.
    coefficients : tuple of float
        Of the run score: intercept first, then one a statistic (see `run_statistics`) and
        activation, then three for the predicted map (see `map_summary`), then one a layout term
        (see `layout_terms`).
    layout_location, layout_scale : tuple of float
        Of the layout, over the runs that were learnt from; none: the score does not look at it.
    products : bool
        Whether the score looks at products of every two numbers of the layout.
    lookahead : float or None
        Log-SNR at which the model is evaluated once more, at the window's end: the sample that its
        own predicted x0 and eps give there is predicted again. None: no further evaluation.
    modules : mapping of str to int
        Modules whose activations are looked at, as they were recorded, with their numbers.
    """

    resolution: Annotated[int, Meta(ge=4, le=1024)] = 16
    floor: Annotated[float, Meta(gt=0, le=10)] = 2e-3
    inputs: Literal["dynamics", "snapshot", "both", "activations", "all"] = "both"
    share: Annotated[float, Meta(gt=0, le=1)] = 0.12
    coefficients: Annotated[tuple[float, ...], Meta(max_length=100_000)] = ()
    layout_location: Annotated[tuple[float, ...], Meta(max_length=100)] = ()
    layout_scale: Annotated[tuple[Annotated[float, Meta(ge=1e-30)], ...], Meta(max_length=100)] = ()
    products: bool = False
    lookahead: float | None = None
    modules: Annotated[dict[str, Annotated[int, Meta(ge=1)]], Meta(max_length=1000)] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        """Check names and sizes."""
        if self.inputs not in INPUTS:
            raise InputError(f"inputs is {self.inputs!r}: give one of {', '.join(INPUTS)}")
        if self.modules and self.inputs not in WITH_ACTIVATIONS:
            raise InputError(f"inputs {self.inputs!r} looks at no modules: leave them out")
        if len(self.layout_location) != len(self.layout_scale):
            raise InputError(
                f"layout_location holds {len(self.layout_location)} numbers and layout_scale "
                f"{len(self.layout_scale)}; expected one of each for a number of the layout"
            )
        if self.resolution < 4 or not 0 < self.share <= 1 or self.floor <= 0:
            raise InputError(
                f"resolution must be at least 4, share above 0 and at most 1, floor above 0: {self}"
            )


@dataclass(frozen=True)
class State:
    """What is kept between steps: maps of the grid's cells, and of the last step all the rest.

    Of the last step: predicted x0 and eps as channels of the map, what a lookahead said, likewise,
    and activations.
    """

    grid: GridState
    shape: tuple[int, int]
    cells: tuple[Any, ...] = ()
    snapshot: Any = None
    ahead: Any = None
    activations: Any = None


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
    layers : tuple of (weight (out, in, k, k), bias (out,))
        Of the network; see `run_network`.
    lookahead : callable, optional
        The model, for the lookahead.
    learnt : tuple of int
        Shape (channel, y, x) of the samples that the network was learnt on.
    """

    parameters: Parameters
    signal: GridSignal
    location: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    layers: Layers = ()
    lookahead: Lookahead | None = None
    learnt: tuple[int, ...] = ()

    @property
    def first_step(self) -> int:
        """First step that is looked at."""
        return self.signal.first_step

    @property
    def last_step(self) -> int:
        """Step after which the window is complete."""
        return self.signal.last_step

    def needs(self) -> tuple[str, ...]:
        """What `update` looks at."""
        more = ("activations",) if self.parameters.inputs in WITH_ACTIVATIONS else ()
        return ("eps", "x0", *more)

    def start(self, shape: Sequence[int]) -> State:
        """Begin with samples of shape ``(batch, channel, y, x)``."""
        if self.layers:
            check_size(self.parameters, self.layers, len(self.location), shape[1:], self.learnt)
        return State(GridState(), (int(shape[-2]), int(shape[-1])))

    def update(
        self,
        state: State,
        step: int,
        *,
        eps: Any = None,
        x0: Any = None,
        activations: Any = None,
    ) -> State:
        """Take in one step; arrays of shape ``(batch, channel, y, x)`` and ``(batch, value)``."""
        grid, changes = self.signal.advance(state.grid, step, x0=x0)
        sizes = {cell: log_change(change, self.maps) for cell, change in changes}
        cells = (*state.cells, *self._standardised(sizes))
        state = replace(state, grid=grid, cells=cells)
        if step != self.last_step or grid.at_grid is None:
            return state
        snapshot = self.snapshot(grid.at_grid, eps)
        ahead = None
        if (level := self.parameters.lookahead) is not None:
            ahead = lookahead_channels(self._look_ahead(x0, eps, level), grid.at_grid, self.maps)
        return replace(state, snapshot=snapshot, ahead=ahead, activations=activations)

    def by_bands(self, arrays: Mapping[str, Any], first_step: int) -> State:
        """State after all steps of a large image: nothing of it but maps."""
        height, width = (int(side) for side in arrays["x0"].shape[-2:])
        cells, snapshot = maps_by_bands(
            arrays, first_step, self.signal, self.last_step, self.maps, self.snapshot
        )
        return State(
            GridState(),
            (height, width),
            self._standardised(cells),
            snapshot,
            activations=arrays["activations"][:, -1] if "activations" in arrays else None,
        )

    @property
    def maps(self) -> change_maps.Parameters:
        """How changes are pooled."""
        return change_maps.Parameters(
            resolution=self.parameters.resolution, floor=self.parameters.floor, blur=0.0
        )

    def _standardised(self, sizes: Mapping[int, Any]) -> tuple[Any, ...]:
        """Log changes of some cells in units of the population."""
        return tuple(
            (size - float(self.location[cell])) * (1 / float(self.scale[cell]))
            for cell, size in sizes.items()
        )

    def snapshot(self, x0: Any, eps: Any, height: int | None = None) -> Any:
        """Predicted x0 and eps at the window's end, as channels of the map.

        Parameters
        ----------
        x0, eps : array, shape (batch, channel, y, x)
        height : int, optional
            As in `snapshot_channels`.
        """
        xp = array_api_compat.array_namespace(x0)
        pictures = (xp.clip(x0, -LIMIT, LIMIT), xp.astype(eps, xp.float32))
        resolution = self.parameters.resolution
        return xp.concat([snapshot_channels(one, resolution, height) for one in pictures], axis=1)

    def _look_ahead(self, x0: Any, eps: Any, level: float) -> Any:
        """Predicted x0 of the sample that this step's predictions give at a later noise level."""
        if self.lookahead is None:
            raise InputError(
                "these thresholds need a lookahead, one more evaluation of the model: give a "
                "pipeline, or a network of your own"
            )
        step = lookahead_step(self.signal.log_snr, level)
        xp = array_api_compat.array_namespace(x0)
        clean, noise = xp.astype(x0, xp.float32), xp.astype(eps, xp.float32)
        return self.lookahead(
            clean * self.signal.alpha[step] + noise * self.signal.sigma[step], step
        )

    def inputs(self, state: State) -> tuple[Any, Any]:
        """Channels for the network, shape (batch, channel, y, x), and run statistics.

        These are the layout of predicted x0 (of the dynamics, where they are all), the statistics
        of every channel and the activations; or the activations alone.
        """
        if len(state.cells) < len(self.location) or state.snapshot is None:
            raise InputError("the window is not complete yet; feed steps up to last_step first")
        xp = array_api_compat.array_namespace(state.snapshot)
        dynamics = xp.stack(list(state.cells), axis=1)
        chosen = {
            "dynamics": [dynamics],
            "snapshot": [state.snapshot],
            "activations": [state.snapshot],
        }.get(self.parameters.inputs, [dynamics, state.snapshot])
        if state.ahead is not None:
            chosen.append(state.ahead)
        channels = chosen[0] if len(chosen) == 1 else xp.concat(chosen, axis=1)
        if self.parameters.inputs == "activations":
            return channels, self._activations(state, channels)
        picture = state.snapshot[:, : state.snapshot.shape[1] // 2]
        shown = dynamics if self.parameters.inputs == "dynamics" else picture
        statistics = [layout_statistics(shown), run_statistics(channels)]
        if self.parameters.inputs in WITH_ACTIVATIONS:
            statistics.append(self._activations(state, channels))
        return channels, xp.concat(statistics, axis=1)

    def _activations(self, state: State, channels: Any) -> Any:
        """The activations, where they are those that the run model was fitted on."""
        xp = array_api_compat.array_namespace(channels)
        found, wanted = state.activations, sum(self.parameters.modules.values())
        if found is None or found.shape[-1] != wanted:
            given = "none were" if found is None else f"{found.shape[-1]} numbers were"
            raise InputError(
                f"these thresholds look at {wanted} activations of "
                f"{', '.join(self.parameters.modules)}, and {given} given: record these modules "
                "(activations=), or attach a corrector to the pipeline"
            )
        return xp.astype(xp.asarray(found, device=array_api_compat.device(channels)), xp.float32)

    def summary(self, statistics: Any, predicted: Any) -> Any:
        """What the run model sees of `inputs`: statistics, map and layout; or activations alone."""
        given = self.parameters
        if given.inputs == "activations":
            return statistics
        xp = array_api_compat.array_namespace(statistics)
        size = layout_size(predicted.shape[-2:])
        terms = [statistics[:, size:], map_summary(predicted)]
        if given.layout_location:
            device = array_api_compat.device(statistics)
            location, scale = (
                xp.asarray(np.asarray(one, np.float32), device=device)
                for one in (given.layout_location, given.layout_scale)
            )
            layout = statistics[:, :size]
            terms.append(layout_terms(layout, location, scale, products=given.products))
        return xp.concat(terms, axis=1)

    def predict(self, state: State) -> tuple[Any, Any]:
        """Predicted map of log local distance, shape (batch, y, x), and run score, (batch,)."""
        return self.predict_from(*self.inputs(state))

    def predict_from(self, channels: Any, statistics: Any) -> tuple[Any, Any]:
        """The same from what `inputs` gives."""
        xp = array_api_compat.array_namespace(channels)
        device = array_api_compat.device(channels)
        predicted = run_network(channels, self.layers)
        summary = self.summary(statistics, predicted)
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


def learnt_parameters(given: Mapping[str, Any]) -> Parameters:
    """Parameters as they are read from thresholds, where tuples are lists."""
    values: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in given.items()
    }
    return Parameters(**values)


def check_size(
    parameters: Parameters, layers: Layers, cells: int, shape: Sequence[int], learnt: Sequence[int]
) -> None:
    """Refuse samples of another size, where their pictures make more or fewer channels.

    Parameters
    ----------
    parameters : Parameters
    layers : tuple of (weight (out, in, k, k), bias (out,))
    cells : int
        Of the grid.
    shape, learnt : sequence of int
        ``(channel, y, x)`` of the samples, and of those that the network was learnt on.

    Raises
    ------
    InputError
    """
    picture = snapshot_size(shape, parameters.resolution)
    found = {"dynamics": cells, "snapshot": 2 * picture, "activations": 2 * picture}.get(
        parameters.inputs, cells + 2 * picture
    )
    found += 0 if parameters.lookahead is None else 2 * picture + 1
    wanted = layers[0][0].shape[1] // (4 if layers[-1][0].shape[0] == 4 else 1)
    if found != wanted:
        raise InputError(
            f"these thresholds were learnt on samples of shape {tuple(learnt)} (channel, y, x), "
            f"{wanted} channels for their network, and found are samples of shape {tuple(shape)}, "
            f"{found} channels: use them on samples of the former size, or learn from runs of the "
            "latter"
        )
    _, height, width = shape
    size = layout_size(change_maps.map_shape(height, width, parameters.resolution))
    if parameters.layout_location and len(parameters.layout_location) != size:
        raise InputError(
            f"these thresholds tell the layout of a picture by {len(parameters.layout_location)} "
            f"numbers, and samples of shape {tuple(shape)} (channel, y, x) have {size}: use them "
            f"on samples of shape {tuple(learnt)}, or calibrate on runs of this one"
        )


def artifact_mask(predicted: Any, *, share: float = 0.12) -> Any:
    """Places that are predicted to end worst.

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


def lookahead_step(log_snr: Sequence[float], target: float) -> int:
    """The sampler's step of nearest log-SNR."""
    return min(range(len(log_snr)), key=lambda step: abs(log_snr[step] - target))


class _Outcome(Variant):
    """See the module."""

    name = "outcome"
    summary = "Learnt from how the recorded runs ended: which trajectories end badly, and where."
    steps_held = STEPS_HELD
    learnt = True
    parameters_type = Parameters
    on_grid = True
    correction = ("renoise", {"where": "foreground"})
    algorithm = ALGORITHM

    def parameters(self) -> dict[str, Any]:
        """See `Parameters`; the coefficients are learnt."""
        defaults = super().parameters()
        for name in ("coefficients", "layout_location", "layout_scale", "products", "modules"):
            del defaults[name]
        return defaults

    def modules(self, parameters: Mapping[str, Any]) -> Mapping[str, int]:
        """Those that the run model was fitted on."""
        return dict(parameters.get("modules") or {})

    def stream(self, thresholds: Thresholds, shape: Sequence[int], sampler: Sampler) -> Stream:
        """Bind the grid and the learnt weights; see `Variant.stream`."""
        given = dict(thresholds.parameters)
        levels = thresholds.levels
        grid = GridSignal(
            "predicted_x0", levels.log_snr, sampler.alpha, sampler.sigma, sampler.log_snr
        )
        location, scale = table(levels.location), table(levels.scale)
        if location.shape != (len(levels.log_snr) - 1,) or scale.shape != location.shape:
            raise InputError("outcome needs one location and scale a grid cell")
        layers = layers_from_bytes(thresholds.weights_bytes())
        learnt = tuple(thresholds.fingerprint["sample_shape"][-3:])
        return Stream(
            learnt_parameters(given), grid, location, scale, layers, sampler.lookahead, learnt
        )

    def extra_evaluations(self, parameters: Mapping[str, Any]) -> int:
        """One, where there is a lookahead."""
        return int(parameters.get("lookahead") is not None)

    def is_clear(self, thresholds: Thresholds, stream: Any, state: Any, margin: float) -> bool:
        """Whether the worst places stand clear of the others."""
        places = np.sort(np.asarray(stream.predict(state)[0]).ravel())
        count = max(1, round(thresholds.parameters["share"] * places.size))
        return bool(places[-count] - places[-count - 1] > margin)


VARIANT = _Outcome()
