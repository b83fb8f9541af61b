"""Local realism: how far local features of an image lie from those of real images.

Needs no trajectory and no label, so it may judge what reads trajectories. Two embedded models for
`fashion` (a teacher for calibration, a judge for reporting), whitened patches for pictures of any
other kind, and any torch module as a feature extractor. Imported lazily: torch is loaded where a
network is used.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
