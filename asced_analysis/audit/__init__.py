"""Audit: whether recorded trajectories obey their own schedule.

``asced_analysis.audit`` is this room and, called, its function: ``aa.audit(ds)``.
"""

import sys
import types
from typing import Any

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)


class _Room(types.ModuleType):
    """A module that is called like the function of its name."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `asced_analysis.audit.auditing.audit`."""
        from asced_analysis.audit.auditing import audit

        return audit(*args, **options)


sys.modules[__name__].__class__ = _Room
