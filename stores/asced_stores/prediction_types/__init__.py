"""Prediction types: what a network's output means, one file each.

Another distribution names its own through an entry point of the group ``asced.prediction_types``.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
