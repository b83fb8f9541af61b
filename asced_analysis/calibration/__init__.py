"""Calibration: from recorded runs to thresholds with a stated guarantee.

The statistic (`asced_analysis.detection`) and the guarantee are separate: `conformal`, `risk`,
`groups`, `robust` and `labels` know numbers only.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
