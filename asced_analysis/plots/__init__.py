"""Plots of every public result: labelled with units, legible at notebook width, colour-blind safe.

Every function takes ``ax=None`` and returns the Axes (or, where it needs several, the Figure).
Importing this package loads no matplotlib; drawing does.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
