"""Compute: one task a shard of a store, streamed in constant memory or run on a Dask cluster."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
