"""Help of the command line: CPU seconds of whole processes, beside Python's own start.

One row a command, from 10 interleaved pairs: what a person waits for is the process, so that
imports count. Every help must answer within 0.3 s on a quiet core.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import numpy as np
from pairs import median_interval

PAIRS = 10
MOST = 0.3


def spent(*arguments: str) -> float:
    """CPU seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print one JSON row a command."""
    for command in ("", "record", "calibrate", "replay", "info"):
        words = ["-m", "asced_cli", *command.split(), "--help"]
        spent(*words)
        plain, ours = np.array([(spent("-c", "pass"), spent(*words)) for _ in range(PAIRS)]).T
        seconds, own = median_interval(ours), median_interval(plain)
        row = {
            "bench": "help",
            "command": command or "asced",
            "cpu_seconds": round(seconds.median, 3),
            "interval": seconds.interval,
            "python_alone": round(own.median, 3),
            "most": MOST,
            "time": time.strftime("%Y-%m-%d"),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
