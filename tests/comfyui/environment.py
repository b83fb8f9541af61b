"""Let another environment import what this one has: ``python environment.py OTHER_PYTHON``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

QUESTION = "import sysconfig; print(sysconfig.get_path('purelib'))"


def main(other: str) -> None:
    """Write a path file there that names the project's roots and our packages."""
    root = Path(__file__).resolve().parents[2]
    there = subprocess.check_output([other, "-c", QUESTION], text=True).strip()
    roots = [root, root / "recorders", root / "stores", root / "cli"]
    shared = [*roots, *(path for path in sys.path if Path(path).name == "site-packages")]
    Path(there, "asced.pth").write_text("".join(f"{path}\n" for path in shared))


if __name__ == "__main__":
    main(sys.argv[1])
