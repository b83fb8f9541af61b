"""The tap: every step of a diffusers scheduler, seen and changed at one place."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
