"""What a detection variant is: all there is to know of it, in one file, under one name.

A variant's module defines a `Stream` (its statistic in constant memory over steps) and a subclass
of `Variant`, of which ``VARIANT`` is the one instance. `asced_analysis.detection.VARIANTS` finds it
by name; another distribution names its own through an entry point of the group
``asced.detection``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from asced_analysis.detection.feeding import feed_stream
from asced_analysis.detection.log_snr_grid import TOLERANCE
from asced_analysis.thresholds.parts import Cleanup
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.compute.source import Source
    from asced_analysis.thresholds.document import Thresholds

NO_CLEANUP = Cleanup("none")
COMPONENTS = Cleanup("components", min_area=100 / 256**2, min_width=5 / 256)
"""The released code's clean-up, as fractions of its 256 x 256 images."""

Lookahead = Callable[[Any, int], Any]
"""``lookahead(sample, step)``: the model's predicted x0 of a sample at a step's noise level."""


@dataclass(frozen=True)
class Sampler:
    """A sampler's noise levels, one entry a step, noisy end first, and its network, if known."""

    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    log_snr: tuple[float, ...]
    lookahead: Lookahead | None = None

    @classmethod
    def of(
        cls, alpha: Iterable[float], sigma: Iterable[float], log_snr: Iterable[float]
    ) -> Sampler:
        """Take any sequences of numbers."""
        return cls(tuple(map(float, alpha)), tuple(map(float, sigma)), tuple(map(float, log_snr)))

    @property
    def kappa(self) -> tuple[float, ...]:
        """``sigma / alpha``, infinite where alpha is 0."""
        pairs = zip(self.sigma, self.alpha, strict=True)
        return tuple(sigma / alpha if alpha else float("inf") for sigma, alpha in pairs)

    def window(self, thresholds: Thresholds) -> tuple[int, int]:
        """First and last step inside the thresholds' window of log-SNR.

        Raises
        ------
        InputError
            Where fewer than two steps lie inside.
        """
        grid = thresholds.levels.log_snr
        return window_steps(self.log_snr, grid[0], grid[-1])


class Stream(Protocol):
    """A variant's statistic for one sampler and sample shape, in constant memory over steps.

    A stream may have a method ``by_bands(arrays, first_step)``: the state after all steps of one
    large image, whose rows it reads in bands (`Variant.steps_held`). Else such an image is read
    whole, step by step.
    """

    @property
    def first_step(self) -> int:
        """First step that is looked at."""

    @property
    def last_step(self) -> int:
        """Step after which the window is complete."""

    def needs(self) -> tuple[str, ...]:
        """Which of ``eps`` and ``x0`` `update` looks at."""

    def start(self, shape: Sequence[int]) -> Any:
        """State before the first step."""

    def update(self, state: Any, step: int, *, eps: Any = None, x0: Any = None) -> Any:
        """State after one more step."""

    def detect(self, state: Any, level: float) -> tuple[Any, Any, Any]:
        """Mask, score and flag at a level."""


@dataclass(frozen=True)
class NoParameters:
    """Of a variant that has none."""


class Variant:
    """A way to find artifacts in trajectories; subclasses fill in what they need.

    Attributes
    ----------
    name : str
        Under which thresholds and commands know it.
    summary : str
        One line for help and docs.
    points : bool
        Whether its masks are places; else whole runs.
    learnt : bool
        Whether it is learnt from how recorded runs ended (calibration's method ``outcome``); then
        a weights file lies beside its thresholds.
    on_grid : bool
        Whether it interpolates between steps, so that steps beside the window matter.
    opened_maps : bool
        Whether its stream has ``statistic(state)``, maps of which every level's masks are cuts, as
        risk control of the flagged share needs.
    parameters_type : dataclass
        Parameters as thresholds hold them, with types, bounds and defaults: sizes are fractions.
    cleanup : Cleanup
        By default.
    steps_held : int
        Steps of a large image, of what `reads` names and as they are stored, that detection takes
        memory for (`bench_step_memory`); of a video it works on a few frames at a time.
    pixel_bytes : int
        Bytes that detection takes of a pixel of one channel, a map and steps in half precision: of
        a grey image they are more than `steps_held` steps'.
    correction : (str, mapping)
        The correction that thresholds of this variant carry by default: a strategy's name, and its
        parameters.
    algorithm : str
        The detector in plain steps, for people who port it.

    Examples
    --------
    >>> from asced_analysis.detection import VARIANTS
    >>> paper = VARIANTS.get("paper")
    >>> paper.parameters(), paper.points, paper.correction[0]
    ({'bank_mean': 'absolute', 'mad_center': 'median'}, True, 'ttc')
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    points: ClassVar[bool] = True
    learnt: ClassVar[bool] = False
    on_grid: ClassVar[bool] = False
    opened_maps: ClassVar[bool] = False
    parameters_type: ClassVar[type[Any]] = NoParameters
    cleanup: ClassVar[Cleanup] = NO_CLEANUP
    steps_held: ClassVar[int] = 16
    pixel_bytes: ClassVar[int] = 0
    correction: ClassVar[tuple[str, Mapping[str, Any]]] = ("ttc", {})
    algorithm: ClassVar[str] = ""

    def parameters(self) -> dict[str, Any]:
        """Parameters and their defaults as thresholds hold them: sizes are fractions."""
        return asdict(self.parameters_type())

    def blocks(self, step_bytes: float, pixels: int) -> int:
        """Steps of a large image that detection takes memory for, whatever it is of.

        Parameters
        ----------
        step_bytes : float
            Of what is read of one step.
        pixels : int
            Rows times columns.
        """
        return max(self.steps_held, ceil(self.pixel_bytes * pixels / step_bytes))

    def reads(self, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """Which of ``eps`` and ``x0`` its streams look at, with these parameters."""
        return ("eps", "x0")

    def stream(self, thresholds: Thresholds, shape: Sequence[int], sampler: Sampler) -> Stream:
        """Bind thresholds to a sampler, for samples of shape ``(batch, channel, y, x)``.

        Raises
        ------
        InputError
            Where the thresholds do not fit the variant, or the sampler never crosses the window.
        """
        raise NotImplementedError

    def fit(
        self, thresholds: Thresholds, source: Source, fit: npt.NDArray[np.bool_]
    ) -> tuple[Thresholds, npt.NDArray[np.float64] | None]:
        """Fill in what the variant takes from a population; by default it takes nothing.

        Parameters
        ----------
        thresholds : Thresholds
            With parameters, window and clean-up.
        source : Source
        fit : array of bool, shape (run,)
            The fit set.

        Returns
        -------
        Thresholds
            Still without a level.
        array, shape (run, cell), or None
            Each run's mean in every grid cell, for the drift check.
        """
        return thresholds, None

    def check(self, thresholds: Thresholds) -> None:
        """Refuse thresholds that make no detector.

        Raises
        ------
        InputError
        """
        grid = thresholds.levels.log_snr
        ends = (grid[0], grid[-1])
        self.stream(thresholds, (1, 1, 32, 32), Sampler((1.0, 1.0), (1.0, 1.0), ends))

    def extra_evaluations(self, parameters: Mapping[str, Any]) -> int:
        """Evaluations of the model beyond sampling's own, for every run, at the window's end."""
        return 0

    def modules(self, parameters: Mapping[str, Any]) -> Mapping[str, int]:
        """Modules of the network whose activations the detector looks at, and how many of each."""
        return {}

    def is_clear(self, thresholds: Thresholds, stream: Any, state: Any, margin: float) -> bool:
        """Whether no rounding decides which places a conformance vector's mask covers."""
        return True


def window_steps(log_snr: Sequence[float], first: float, last: float) -> tuple[int, int]:
    """First and last step whose log-SNR lies in a window (both included).

    Raises
    ------
    InputError
        Where fewer than two steps do.
    """
    inside = [
        step
        for step, value in enumerate(log_snr)
        if isfinite(value) and first - TOLERANCE <= value <= last + TOLERANCE
    ]
    if len(inside) < 2:
        raise InputError(
            f"{len(inside)} steps of this sampler lie in the window of log-SNR {first:.3g} .. "
            f"{last:.3g}; expected at least two. Sample with more steps, or calibrate for it."
        )
    return inside[0], inside[-1]


def table(values: Sequence[Any]) -> npt.NDArray[np.float32]:
    """Numbers of thresholds as a float32 array.

    Raises
    ------
    InputError
        Where rows differ in length, or a number is beyond float32.
    """
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except ValueError:
        raise InputError("a table of the thresholds has rows of different lengths") from None
    if not (np.abs(numbers) < np.finfo(np.float32).max).all():
        raise InputError("a number of the thresholds is beyond single precision")
    return numbers.astype(np.float32)


def raw_numbers(stream: Any, source: Source, fit: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Numbers before standardising, ``stream.raw``, of the fit set's runs; shape (run, ...)."""
    numbers = []
    batches = source.batches(stream.needs(), steps=(stream.first_step, stream.last_step), only=fit)
    for batch in batches:
        whole = getattr(stream, "lookahead", None) is not None
        for _, state in feed_stream(stream, batch.arrays, batch.first_step, whole=whole):
            numbers.append(np.asarray(stream.raw(state), dtype=np.float64))
    return np.concatenate(numbers)


def nested(values: Any) -> Any:
    """Nested lists as nested tuples, as thresholds hold them."""
    return tuple(nested(value) for value in values) if isinstance(values, list) else values
