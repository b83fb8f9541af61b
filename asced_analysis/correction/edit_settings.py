"""What a corrector was told to do, whichever call it is in: whom to edit, how, and from when on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asced_analysis.correction.loop_step import PartialStepTable
from asced_analysis.correction.options import CorrectorOptions
from asced_analysis.correction.registry import parameters_of
from asced_analysis.correction.settings import (
    correction_settings,
    correction_step,
    growth_of,
    recorded_precision,
    strategy_of,
)
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.thresholds.document import Thresholds
    from asced_recorders.pipelines.activations import ActivationWatch
    from asced_recorders.tap.schedulers import StepTable


class EditSettings:
    """Detector, strategy and edit of a corrector.

    Parameters
    ----------
    thresholds : Thresholds or None
    options : CorrectorOptions

    Attributes
    ----------
    activations : ActivationWatch or None
        Of the pipeline it is attached to, where the thresholds look at activations.
    arguments : dict
        What that pipeline was called with, by name.
    """

    def __init__(self, thresholds: Thresholds | None, options: CorrectorOptions) -> None:
        strategy = strategy_of(thresholds, options.strategy, dict(options.parameters))
        if not strategy.in_loop:
            raise InputError(
                f"{strategy.name} samples a run more than once, which a corrector in the loop "
                "cannot do: use `asced replay`, or a strategy of one pass, such as renoise"
            )
        if options.control is not None and strategy.region != "mask":
            raise InputError(
                f"{strategy.title} does not edit the detector's mask, so that there is "
                "nothing to control in the loop: `asced evaluate` has the controls"
            )
        own = correction_settings(thresholds)
        self.thresholds, self.strategy, self.control = thresholds, strategy, options.control
        self.seed = int(own.get("seed", 0)) if options.seed is None else options.seed
        self.step_given, self.grow, self.soft = options.step, options.grow, options.soft
        self.network, self.monitor = options.network, options.monitor
        self.activations: ActivationWatch | None = None
        self.arguments: dict[str, Any] = {}
        self.recorded = recorded_precision(thresholds, options.dtype)

    @property
    def looks(self) -> bool:
        """Whether anything is to be found: to be edited, or to be told to a monitor."""
        return self.strategy.edits or self.monitor is not None

    @property
    def known_sampler(self) -> str:
        """The sampler that thresholds were calibrated with."""
        known = None if self.thresholds is None else self.thresholds.fingerprint["scheduler_class"]
        return "custom" if known is None else str(known)

    def target(self, table: StepTable) -> int:
        """``T_c`` on the steps of a sampler."""
        if isinstance(table, PartialStepTable):
            return table.steps - 1  # made when the next step is the one to edit
        if self.step_given is not None:
            return self.step_given
        return correction_step(self.thresholds, table)

    def growth(self, shape: tuple[int, ...]) -> int:
        """Pixels by which a mask of this shape is grown."""
        return growth_of(self.thresholds, self.grow, shape)

    def correction(self) -> dict[str, Any] | None:
        """How runs are corrected, as a store says it; None where they are only sampled."""
        if not self.looks:
            return None
        return {
            "strategy": self.strategy.name,
            "strategy_parameters": parameters_of(self.strategy),
            "step": self.step_given,
            "seed": self.seed,
            "control": self.control,
            "grow": self.grow,
            "soft": self.soft,
            "thresholds": None if self.thresholds is None else self.thresholds.to_dict(),
        }
