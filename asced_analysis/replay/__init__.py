"""Replay: the recorded runs once more, with a correction, each paired with its original."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
