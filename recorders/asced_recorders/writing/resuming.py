"""Whether a recording is the one that a store was begun with, and by which launch."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from asced_stores import TrajectorySpec, TrajectoryStore
from asced_stores.errors import InputError
from asced_stores.format.calls import call_differences, config_differences

# What has to agree for a recording to go on: as written in the attributes by `record`.
RESUMED = (
    *("steps", "seed", "keep", "guidance_scale", "prompts_sha256", "labels_sha256"),
    *("pipeline_class", "call_missing", "pruning"),
)


def launch_id(rank: int, world_size: int) -> str:
    """What the processes of one launch have in common and no other launch has.

    torchrun and SLURM number their launches; without either it is random, and there is one
    process.
    """
    keys: tuple[str, ...] = (
        "TORCHELASTIC_RUN_ID",
        "MASTER_ADDR",
        "MASTER_PORT",
        "TORCHELASTIC_RESTART_COUNT",
    )
    keys += ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    found = [f"{key}={os.environ[key]}" for key in keys if key in os.environ]
    if world_size == 1 or not found:
        found = [uuid.uuid4().hex]
    elif os.environ.get("LOCAL_WORLD_SIZE") == str(world_size):
        found.append(f"parent={os.getppid()}")  # one node: the processes have one parent
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]


def check_resumable(
    store: TrajectoryStore, spec: TrajectorySpec, batch_size: int, runs: int | None
) -> None:
    """Raise an `InputError` that says what differs, if a store is not the same recording."""
    differing = []
    if store.batch_size != batch_size:
        differing.append(f"batch size {store.batch_size}, now {batch_size}")
    if runs is not None and store.planned_runs != runs:
        differing.append(f"{store.planned_runs} runs, now {runs}")
    differing += _differing_facts(store.spec.attributes, spec.attributes)
    for name in ("scheduler_config", "guider", "guider_2"):
        configs = (each.attributes.get(name) or {} for each in (store.spec, spec))
        differing += [f"{name}: {each}" for each in config_differences(*configs)]
    if store.spec.attributes.get("correction") != spec.attributes.get("correction"):
        differing.append("another correction")
    differing += [
        f"another {name.replace('_', ' ')}"
        for name in ("scheduler_class", "prediction_type", "model_fingerprint")
        if store.spec.attributes.get(name) != spec.attributes.get(name)
    ]
    if not differing and store.spec.to_json() != spec.to_json():
        mine, theirs = spec.to_json(), store.spec.to_json()
        differing += [name for name in mine if mine[name] != theirs[name]]
    if not differing and store.fingerprint != spec.fingerprint:
        differing.append("another way of sampling")
    _refuse(store, differing)


def check_facts(store: TrajectoryStore, attributes: Mapping[str, Any]) -> None:
    """Do the same with what is known before anything is sampled."""
    _refuse(store, _differing_facts(store.spec.attributes, attributes))


def _differing_facts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a recording is asked to do, where that differs."""
    differing = [
        f"{name} {before.get(name)}, now {now.get(name)}"
        for name in RESUMED
        if before.get(name) != now.get(name)
    ]
    modules = [[one["module"] for one in each.get("activations", ())] for each in (before, now)]
    if modules[0] != modules[1]:
        differing.append(f"activations of {modules[0] or 'none'}, now {modules[1] or 'none'}")
    for name in ("call", "compute"):
        differing += call_differences(before.get(name) or {}, now.get(name) or {})
    return differing


def _refuse(store: TrajectoryStore, differing: Sequence[str]) -> None:
    if differing:
        raise InputError(
            f"{store.path} was recorded with other settings ({'; '.join(differing)}): resume with "
            "the same ones, or record to another path"
        )
