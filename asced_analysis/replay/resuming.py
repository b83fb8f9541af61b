"""The store of a replay: laid out anew, or one that was interrupted and goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.replay.planning import Plan
from asced_analysis.replay.recording import Recording
from asced_stores import TrajectorySpec, TrajectoryStore, open_runs
from asced_stores.errors import InputError


def replay_store(
    out: str | Path,
    spec: TrajectorySpec,
    recording: Recording,
    *,
    runs: int | None,
    batch_size: int,
    overwrite: bool = False,
    resume: bool = False,
) -> TrajectoryStore:
    """Make a store for replayed runs, or open the one that is to go on.

    Raises
    ------
    InputError
        Where the store that lies there holds replays of other runs, or made in another way.
    """
    if resume and overwrite:
        raise InputError("resume and overwrite exclude each other: choose one")
    if not resume:
        return TrajectoryStore.create(
            out, spec, runs=runs, batch_size=batch_size, overwrite=overwrite
        )
    store = TrajectoryStore.open(out)
    differing = [
        f"{name.replace('_', ' ')} {_short(store.attributes.get(name))}, now {_short(wanted)}"
        for name, wanted in json.loads(json.dumps(dict(spec.attributes))).items()
        if name in CHOICES and store.attributes.get(name) != wanted
    ]
    if (store.batch_size, store.planned_runs) != (batch_size, runs):
        differing.append(
            f"{store.planned_runs} runs in batches of {store.batch_size}, now {runs} in batches of "
            f"{batch_size}"
        )
    if not differing and store.spec.to_json() != spec.to_json():
        differing.append("another layout")
    if not differing:
        differing = _other_runs(store, recording)
    if differing:
        raise InputError(
            f"{store.path} was made in another way ({'; '.join(differing)}): resume with the same "
            "recording and options, or choose another --out"
        )
    return store


CHOICES = (
    "replay_of",
    "thresholds",
    "strategy",
    "strategy_parameters",
    "teacher",
    "correction_step",
    "correction_seed",
    "control",
    "start",
    "grow",
    "soft",
    "only_flagged",
    "plan",
    "branches",
    "replay_conditions",
)
"""Attributes of a replay that decide what it holds."""


def plan_fingerprint(plan: Plan | None) -> str | None:
    """Hash of whom to edit and where; None where the loop finds out."""
    if plan is None:
        return None
    seen = hashlib.sha256()
    for run in sorted(plan.masks):
        seen.update(f"{run} {plan.masks[run].shape} ".encode())
        seen.update(np.packbits(plan.masks[run]).tobytes())
    return f"sha256:{seen.hexdigest()}"


def _other_runs(store: TrajectoryStore, recording: Recording) -> list[str]:
    """Whether the runs that are there already were sampled from other seeds."""
    there = open_runs(store.path, statuses=("complete", "failed"))
    if not there.sizes.get("run"):
        return []
    recorded = dict(
        zip(recording.dataset["run"].values, recording.dataset["seed"].values, strict=True)
    )
    for run, seed in zip(there["run"].values, there["seed"].values, strict=True):
        if run not in recorded or recorded[run] != seed:
            return [f"run {run} of seed {seed} is not one of {recording.store.path}"]
    return []


def _short(value: Any) -> str:
    """A value for a message: not the whole of thresholds or branches."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
