"""Trajectory stores: what a score trajectory is, and where it lies.

The ground floor: it imports none of the other packages, and no torch. Names are loaded when they
are used.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
