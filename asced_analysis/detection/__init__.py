"""Detection: which pixels of which run went wrong; one variant a module, one kernel for all.

Kernels are array-API code: the same function runs in the sampling loop on torch tensors and
offline on NumPy blocks. Core axes come last, ``(..., step, channel, y, x)``.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
