"""Thresholds for other deployments: a bundle for ports, a `torch.export` program, the schema."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
