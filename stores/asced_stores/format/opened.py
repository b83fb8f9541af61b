"""A store that was opened: what its root says, and which batches are committed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from asced_stores.backends.backend import Backend
from asced_stores.errors import DamagedBatchError
from asced_stores.format.layout import ArrayLayout
from asced_stores.format.markers import LIMIT, Marker, batch_of, parse_marker
from asced_stores.format.metadata import (
    FORMAT,
    FORMAT_VERSION,
    RESERVED_ATTRIBUTES,
    read_metadata,
)
from asced_stores.format.spec import RUN_SCALARS, TrajectorySpec


class OpenedStore:
    """Facts of a store and its markers; `asced_stores.TrajectoryStore` does the rest.

    Parameters
    ----------
    backend : Backend
        Where the bytes lie.
    metadata : mapping
        Of the root, as `read_metadata` checked it.
    """

    def __init__(self, backend: Backend, metadata: Mapping[str, Any]) -> None:
        self.backend = backend
        self._metadata = metadata
        attributes = dict(metadata["attributes"])
        own = attributes["asced"]
        self.path = backend.url
        user = {k: v for k, v in attributes.items() if k not in RESERVED_ATTRIBUTES}
        self.spec = TrajectorySpec.from_json(own["spec"], user)
        self.batch_size: int = own["batch_size"]
        self.planned_runs: int | None = own["planned_runs"]
        self.id: str = own["id"]
        self.capacity: int = own["capacity"]
        self.layouts = {
            variable.name: ArrayLayout(
                variable, self.batch_size, tuple(own["inner"][variable.name])
            )
            for variable in self.spec.variables
        }

    def reload(self) -> Self:
        """Open it again, to see whether it has been sealed since."""
        return type(self)(self.backend, read_metadata(self.backend))

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the store, the format's name and version among them."""
        own = {"format": FORMAT, "format_version": FORMAT_VERSION}
        return {**own, **self.spec.attributes}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what must agree for runs to be comparable."""
        return self.spec.fingerprint

    @property
    def sealed(self) -> Mapping[str, Any] | None:
        """Facts of the seal, None while the store is open for writing."""
        found: Mapping[str, Any] | None = self._metadata["attributes"]["asced"]["sealed"]
        return found

    def root_attributes(self) -> dict[str, Any]:
        """Attributes as they stand in the root, the store's own among them."""
        return dict(self._metadata["attributes"])

    @property
    def batches(self) -> int:
        """Number of batches there can be."""
        return -(-self.capacity // self.batch_size)

    @cached_property
    def scalar_dtypes(self) -> dict[str, str]:
        """Dtypes of the numbers by run that lie in a marker."""
        standard = {k: v for k, v in RUN_SCALARS.items() if k not in ("rank", "batch")}
        return standard | {v.name: v.dtype for v in self.spec.scalars}

    def status_key(self, batch: int) -> str:
        """Key of the status chunk of a batch."""
        return f"status/c/{batch}"

    def shard_keys(self, batch: int) -> dict[str, str]:
        """Keys of everything that a batch consists of, except for its marker."""
        keys = {name: layout.key(batch) for name, layout in self.layouts.items()}
        return keys | {"status": self.status_key(batch)}

    # --- what is committed ----------------------------------------------------------------------

    def committed_batches(self) -> list[int]:
        """Numbers of the batches that are committed, rising."""
        found = (batch_of(name) for name in self.backend.names("commits"))
        return sorted(batch for batch in found if batch is not None and batch < self.batches)

    def marker(self, batch: int) -> Marker:
        """Read the marker of a batch.

        Raises
        ------
        DamagedBatchError
            If it is absent, truncated or altered.
        """
        key = f"commits/{batch}.json"
        try:
            data = self.backend.read(key, limit=LIMIT)
        except FileNotFoundError as error:
            raise DamagedBatchError(f"batch {batch} of {self.path} is not committed") from error
        return self.parse_marker(batch, data)

    def parse_marker(self, batch: int, data: bytes) -> Marker:
        """Check and decode the bytes of a marker of this store."""
        marker = parse_marker(
            data,
            batch=batch,
            fingerprint=self.fingerprint,
            dtypes=self.scalar_dtypes,
            where=f"commits/{batch}.json of {self.path}",
        )
        if marker.runs > self.batch_size or set(marker.shards) != set(self.shard_keys(batch)):
            raise DamagedBatchError(
                f"commits/{batch}.json of {self.path} names {marker.runs} runs of "
                f"{sorted(marker.shards)}: expected at most {self.batch_size} of "
                f"{sorted(self.shard_keys(batch))}"
            )
        return marker
