"""Correction in the sampling loop: detect while sampling, edit the sample entering step ``T_c``.

One strategy a file, each a frozen dataclass; `Corrector` joins a detector and a strategy and
attaches to any pipeline the recorder supports. Uses torch; loads no zarr, xarray, dask or
scikit-learn.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
