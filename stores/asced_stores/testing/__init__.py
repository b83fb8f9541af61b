"""For tests: small synthetic stores, and what every backend must do (`backend_contract`)."""

from __future__ import annotations

from asced_stores.testing.synthetic import synthetic_batch, synthetic_spec, synthetic_store

__all__ = ["synthetic_batch", "synthetic_spec", "synthetic_store"]
