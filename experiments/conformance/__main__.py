"""Run diffusers' scheduler and pipeline tests twice, and print what the tap changed."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

FOLDERS = {"schedulers": "tests/schedulers", "pipelines": "tests/pipelines"}


def outcomes(
    checkout: Path, folders: Sequence[str], keyword: str, plugins: Sequence[str]
) -> dict[str, str]:
    """Outcome of each test of the checkout: passed, skipped, or the first line of why it failed."""
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *folders]
        command += [f"--junitxml={report}", "-o", "junit_family=xunit1"]
        command += ["-k", keyword] if keyword else []
        for plugin in plugins:
            command += ["-p", f"experiments.conformance.{plugin}"]
        here = str(Path(__file__).resolve().parents[2])
        tested = str(checkout.resolve() / "src")  # plugins import before the tests' conftest
        path = os.pathsep.join([tested, here, *filter(None, [os.environ.get("PYTHONPATH")])])
        subprocess.run(command, cwd=checkout, env={**os.environ, "PYTHONPATH": path}, check=False)
        if not report.exists():
            raise SystemExit(f"pytest wrote no report for {', '.join(folders)} of {checkout}")
        found = {}
        for case in ElementTree.parse(report).iter("testcase"):
            result = next((child for child in case if child.tag in ("failure", "error")), None)
            skipped = case.find("skipped") is not None
            name = f"{case.get('classname')}::{case.get('name')}"
            message = "" if result is None else str(result.get("message")).partition("\n")[0]
            found[name] = message if result is not None else "skipped" if skipped else "passed"
    return found


def main() -> int:
    """Print counts, and each test that passes plain and not tapped."""
    parser = argparse.ArgumentParser(prog="python -m experiments.conformance", description=__doc__)
    parser.add_argument("checkout", type=Path, help="a checkout of diffusers: its own code is run")
    parser.add_argument("--only", choices=sorted(FOLDERS), help="by default both")
    parser.add_argument("--keyword", default="", help="pytest's -k, for example full_loop")
    parser.add_argument("--under", nargs="+", default=[""], help="Folders, for example ddim dit.")
    parser.add_argument(
        "--stand-ins",
        action="store_true",
        help="build tiny tokenizers and T5 encoders, which the tests of pipelines fetch",
    )
    options = parser.parse_args()
    built = ["stand_ins"] if options.stand_ins else []
    changed = 0
    for name in [options.only] if options.only else sorted(FOLDERS):
        folders = [str(Path(FOLDERS[name]) / under) for under in options.under]
        for folder in folders:
            if not (options.checkout / folder).exists():
                raise SystemExit(
                    f"{options.checkout} has no {folder}: give a checkout of diffusers"
                )
        plain, tapped = (
            outcomes(options.checkout, folders, options.keyword, [*built, *tap])
            for tap in ([], ["plugin"])
        )
        lost = {n: tapped.get(n, "gone") for n, v in plain.items() if v == "passed"}
        lost = {n: v for n, v in lost.items() if v != "passed"}
        passed = Counter(value == "passed" for value in plain.values())[True]
        print(f"{name}: {passed - len(lost)} of {passed} tests that pass plain pass tapped")
        for test, why in sorted(lost.items()):
            print(f"  {test}: {why[:160]}")
        changed += len(lost)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
