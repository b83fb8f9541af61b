"""Copying: chosen runs, another layout, or several stores, into a new store."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
