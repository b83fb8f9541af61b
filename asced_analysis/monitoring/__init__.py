"""Prometheus metrics of a server: who is flagged, how scores lie, whether they drift, how fast."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
