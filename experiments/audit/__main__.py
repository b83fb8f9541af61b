"""Plant nine faults and sample 40 sound settings, each with 64 runs, and audit them all.

    python -m experiments.audit                    # half an hour of one core
    python -m experiments.audit --runs 16 --only faults

Writes ``docs/results/audit.json``; ``docs/audit.md`` shows it.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import asced_analysis as aa
from asced_recorders import Recorder, load_pipeline
from asced_stores.errors import InputError
from experiments.audit.faults import FAULTS
from experiments.audit.settings import settings

ROOT = Path(__file__).parents[2]
MODELS = ("fashion", str(ROOT / "experiments" / "models" / "shapes"))


def audit_of(pipe: Any, *, runs: int, steps: int, batch: int = 64) -> Any:
    """Sample, record and audit."""
    store = f"memory://audit-{time.monotonic_ns()}"
    with Recorder(pipe, store) as recorder:
        for first in range(0, runs, batch):
            numbers = range(first, min(first + batch, runs))
            generators = [torch.Generator().manual_seed(number) for number in numbers]
            size = {"batch_size": len(numbers), "generator": generators}
            if type(pipe).__name__ == "DDPMPipeline":  # it stacks what it draws of each by itself
                size["output_type"] = "np"
            pipe(num_inference_steps=steps, **size)
    assert recorder.store is not None
    return aa.audit(aa.open_runs(recorder.store, statuses=("complete", "failed")))


def measure(models: Iterable[str], *, runs: int, only: str | None) -> dict[str, Any]:
    """Everything, as rows."""
    rows: dict[str, list[dict[str, Any]]] = {"faults": [], "sound": []}
    for model in models:
        for fault in FAULTS if only != "sound" else ():
            rows["faults"].append(
                _row(model, fault.name, fault.pipeline(load_pipeline(model)), runs, 10)
                | {"expected": list(fault.expected)}
            )
            row = rows["faults"][-1]
            row["recognised"] = bool(set(row["expected"]) & set(row["found"]))
            print(_line(row), flush=True)
        kind = str(load_pipeline(model).scheduler.config.prediction_type)
        for one in settings(kind) if only != "faults" else ():
            pipe = one.pipeline(load_pipeline(model))
            rows["sound"].append(_row(model, one.name, pipe, runs, one.steps))
            print(_line(rows["sound"][-1]), flush=True)
    return {"runs": runs, **rows}


def _row(model: str, name: str, pipe: Any, runs: int, steps: int) -> dict[str, Any]:
    found = audit_of(pipe, runs=runs, steps=steps)
    return {
        "model": Path(model).name,
        "setting": name,
        "steps": steps,
        "found": [one.name for one in found.findings],
        "what": [one.what for one in found.findings],
        "cause": [one.cause for one in found.findings],
        "notes": list(found.notes),
    }


def _line(row: dict[str, Any]) -> str:
    found = ", ".join(row["found"]) or "nothing"
    wanted = f" (expected {', '.join(row['expected'])})" if "expected" in row else ""
    said = "".join(
        f"\n    {what}\n    {why}" for what, why in zip(row["what"], row["cause"], strict=True)
    )
    return f"{row['model']:8} {row['setting']:42} {row['steps']:3}  {found}{wanted}{said}"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--only", choices=["faults", "sound"])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "audit.json")
    arguments = parser.parse_args()
    if arguments.runs < 2:
        raise InputError(f"runs is {arguments.runs}; an interval needs at least 2")
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    result = measure(arguments.models, runs=arguments.runs, only=arguments.only)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    faults, sound = result["faults"], result["sound"]
    print(f"faults recognised: {sum(row['recognised'] for row in faults)} of {len(faults)}")
    print(
        f"sound settings with findings: {sum(bool(row['found']) for row in sound)} of {len(sound)}"
    )


if __name__ == "__main__":
    main()
