"""Signals: score, weighted score, dynamics, innovation and acceleration.

`dynamics` are pure array functions with the core axes ``(..., step, channel, y, x)`` last; `fields`
applies them to datasets, lazily.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
