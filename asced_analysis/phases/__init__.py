"""Phases: Profiling, Mutation and Refinement, found in the activity of many runs."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
