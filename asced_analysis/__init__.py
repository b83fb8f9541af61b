"""Score dynamics of diffusion sampling: analysis, calibration, correction and replay.

Names load on first use: ``import asced_analysis`` loads neither torch nor diffusers nor click, and
a `Corrector` needs no zarr, xarray, dask or scikit-learn. The ``ds.asced`` accessor is registered
with the first dataset that this package opens (or by ``import asced_analysis.accessor``).
"""

import importlib
import sys

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

if "xarray" in sys.modules:  # already paid for: register ``ds.asced`` at once
    importlib.import_module("asced_analysis.accessor")
