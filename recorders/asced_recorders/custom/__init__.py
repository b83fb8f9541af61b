"""Sampling loops that are not diffusers': one's own, and those of other libraries."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
