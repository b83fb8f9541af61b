"""Recording: many runs in batches (`record`), or whatever a pipeline samples (`Recorder`)."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
