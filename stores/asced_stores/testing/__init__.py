"""For tests: small synthetic stores, and the contract suite that every backend must pass."""

from __future__ import annotations

from asced_stores.testing.synthetic import synthetic_batch, synthetic_spec, synthetic_store

__all__ = ["synthetic_batch", "synthetic_spec", "synthetic_store"]
