"""Re-noise: a flagged run starts again from its predicted x0 at ``T_c``, wherever its mask is."""

from __future__ import annotations

from dataclasses import dataclass

from asced_analysis.correction.regions import Region, check_region, region_name
from asced_analysis.correction.ttc import TargetedCorrection


@dataclass(frozen=True)
class Renoise(TargetedCorrection):
    """Targeted correction of a flagged run as a whole, or of all that is drawn in it.

    The detector says whom; predicted x0 says where. Fresh noise in an empty background draws
    things that do not belong there, so on pictures with a plain ground the foreground alone is the
    better choice.

    Attributes
    ----------
    where : {"everywhere", "foreground", "mask"} or callable
        ``everywhere``: the whole image. ``foreground``: where predicted x0 of the step before
        ``T_c`` differs from the median of its border by over a tenth of its range (see
        `asced_analysis.correction.controls.foreground`): easily found on plain ground; on a
        picture whose border is busy it is most of the image, or the wrong part of it. ``mask``: as
        `ttc` does. A function of predicted x0, float32 (channel, y, x), that gives a bool mask
        (y, x) takes the place of the rule.
    """

    name = "renoise"

    where: Region = "everywhere"

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        check_region(self.where)

    @property
    def region(self) -> Region:
        """As asked for."""
        return self.where

    @property
    def title(self) -> str:
        """The name, the place, and the further steps."""
        return f"{super().title}, {region_name(self.where)}"


STRATEGY = Renoise
