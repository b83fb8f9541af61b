"""Worker processes on this machine are closed in peace."""

from __future__ import annotations

import atexit
import logging
import time

import pytest

from asced_analysis.compute.workers import local_cluster


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def dawdle() -> None:
    """As on a machine under load, where a process takes long to end."""
    atexit.register(time.sleep, 6)


@pytest.mark.slow
def test_a_worker_that_is_slow_to_end_is_waited_for_and_not_killed() -> None:
    from distributed import Client

    heard = Heard()
    nannies = logging.getLogger("distributed.nanny")
    nannies.addHandler(heard)
    try:
        with local_cluster(1) as cluster, Client(cluster) as client:
            assert list(client.nthreads().values()) == [1]
            client.run(dawdle)
            began = time.monotonic()
        assert time.monotonic() - began > 6
    finally:
        nannies.removeHandler(heard)
    assert not [message for message in heard.messages if "killing" in message]
