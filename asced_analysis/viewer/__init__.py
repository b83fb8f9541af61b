"""Look at runs: a gallery, one run step by step, thresholds under a slider, masks by hand.

The same page is served locally by ``asced view`` and shown inside a notebook by
``ds.asced.explore()``. Python answers requests (`session`), which one script in the browser sends;
server and widget only carry bytes between the two. Needs ``pip install asced-analysis[viewer]``.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
