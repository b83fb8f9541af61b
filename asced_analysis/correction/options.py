"""Options of what corrects runs while they are sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol

from asced_stores.errors import InputError
from asced_stores.options import option, options, others

if TYPE_CHECKING:
    from torch import Tensor

    from asced_analysis.correction.controls import Control
    from asced_analysis.correction.detecting import Network
    from asced_analysis.correction.settings import ImageReport
    from asced_analysis.correction.strategy import Strategy
    from asced_recorders.tap.tap import StepEvent


class Monitor(Protocol):
    """What a corrector tells of its steps."""

    def after_step(
        self, event: StepEvent, sample: Tensor, report: Sequence[ImageReport], *, edits: bool
    ) -> None:
        """See a step that was taken, the sample that goes on, and what was found so far."""


@options
class EditOptions:
    """When, where and with what noise flagged runs are edited."""

    step: int | None = option(None, "Correction step T_c, instead of the thresholds' own.")
    seed: int | None = option(
        None,
        "Seed of the correction's noise. A run's noise depends on this and its number alone.",
    )
    grow: int | None = option(
        None, "Grow masks by this many pixels, in place of the thresholds' fraction."
    )
    soft: int = option(0, "Pixels over which the masks' edges fade.")

    def __post_init__(self) -> None:
        for name, least in (("step", 1), ("seed", 0), ("grow", 0), ("soft", 0)):
            value = getattr(self, name)
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if value is not None and not (whole and int(value) >= least):
                raise InputError(
                    f"{name} is {value!r}; expected a whole number of at least {least}"
                )


@options
class CorrectorOptions(EditOptions):
    """How a corrector detects and edits."""

    strategy: str | Strategy | None = option(
        None, "Overrides the thresholds' own; ``ttc`` where neither says."
    )
    control: Control | None = option(
        None,
        "Correct at the wrong place, for comparison with the mask: ``shuffled``, ``foreground``, "
        "``everywhere``.",
    )
    network: Network | None = option(
        None,
        "For thresholds with a lookahead: ``network(sample, table, step)`` gives predicted x0. "
        "`attach` takes the pipeline's own where none is given.",
    )
    dtype: str | None = option(
        None,
        "Precision in which runs of this model are recorded, to which the loop rounds what it "
        "looks at, float16 or float32; by default that of the runs that the thresholds were "
        "calibrated on.",
    )
    schedule: tuple[Sequence[float], Sequence[float]] | None = option(
        None,
        "Noise levels (alphas, sigmas) of a loop of one's own that hands its steps to `step`, "
        "noisy end first.",
    )
    monitor: Monitor | None = option(
        None,
        "Told of every step, and of the report (`asced_analysis.monitoring.Monitor`). With "
        "strategy ``none`` it makes the corrector look without editing.",
    )
    parameters: Mapping[str, Any] = others("Of the strategy.")
