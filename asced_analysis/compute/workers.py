"""Worker processes on this machine, for Dask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from distributed import LocalCluster

PATIENCE = 60.0
"""Seconds that a worker may take to end; Dask kills it after four, and warns."""


def local_cluster(workers: int, **options: Any) -> LocalCluster:
    """Worker processes of one thread each, given time to end on a machine under load.

    Features, phases and comparisons hold Python's lock for much of their time, so that processes
    help where threads do not. Use it in a script under ``if __name__ == "__main__":``, since
    workers import the script again.

    Parameters
    ----------
    workers : int
        Number of processes.
    **options
        Of `distributed.LocalCluster`; ``dashboard_address=":8787"`` shows what they do.

    Returns
    -------
    distributed.LocalCluster
        Close it, or use it in a ``with``.

    Examples
    --------
    >>> from distributed import Client
    >>> import asced_analysis as aa
    >>> from asced_analysis.compute.workers import local_cluster
    >>> with local_cluster(2) as cluster, Client(cluster):
    ...     stats = aa.step_statistics(aa.open_runs("runs.zarr"))
    """
    from distributed import LocalCluster, Nanny

    class Patient(Nanny):
        """Lets its worker end by itself."""

        async def close(  # type: ignore[override]
            self, timeout: float = PATIENCE, reason: str = "nanny-close"
        ) -> Literal["OK"]:
            """Wait for the worker's process to end."""
            return await super().close(timeout=timeout, reason=reason)

    given = {"threads_per_worker": 1, "dashboard_address": None, **options}
    return LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=workers, worker_class=Patient, **given
    )
