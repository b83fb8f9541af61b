"""Writing: a run's arrays gathered step by step, and written behind a bounded ring."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
