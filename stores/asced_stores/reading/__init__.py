"""Reading: committed batches as arrays, as a stream, or as a lazy xarray Dataset."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
