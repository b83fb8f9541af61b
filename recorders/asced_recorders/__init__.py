"""Record score trajectories from diffusers: the only code that knows that library.

``record`` draws many runs into a store, ``Recorder`` watches a pipeline or a loop of one's own,
``load_pipeline`` finds models by name, folder or hub. They are imported when they are asked for:
this package alone loads neither torch nor diffusers.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
