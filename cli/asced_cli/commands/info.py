"""``asced info``: what a store holds."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from asced_cli.command import asced_command, emit
from asced_cli.options import store_argument


@asced_command(
    ("For people", "asced info runs.zarr"),
    ("For machines", "asced info runs.zarr --json"),
)
@store_argument
def command(store: str) -> None:
    """Show what a STORE holds, how complete it is and who wrote what."""
    from asced_stores import TrajectoryStore
    from asced_stores.reading.summary import summarise

    facts = summarise(TrajectoryStore.open(store))
    emit(facts, table=_table(facts))


def _table(facts: dict[str, Any]) -> list[tuple[str, str]]:
    batches, runs = facts["batches"], facts["runs"]
    planned = batches["planned"]
    state = "sealed" if facts["sealed"] else "complete" if not batches["missing"] else "incomplete"
    if planned is None and not facts["sealed"]:
        state = "open, number of runs not planned"
    observed = facts["observed"]
    full = "" if observed is None else f" in full, statistics of {observed}"
    rows = [
        ("store", facts["path"]),
        ("state", state),
        ("runs", f"{runs['complete']} complete, {runs['failed']} failed{full}"),
        ("planned", "unknown" if planned is None else f"{facts['planned_runs']} runs"),
        ("batches", f"{batches['committed']} of {planned or '?'}, {facts['batch_size']} runs each"),
        ("size", f"{facts['bytes'] / 1e6:.1f} MB"),
        ("steps", facts["steps_told"]),
        ("variables", ", ".join(f"{n} {v['dtype']}" for n, v in facts["variables"].items())),
        ("fingerprint", facts["fingerprint"]),
    ]
    if batches["missing"]:
        missing = ", ".join(map(str, batches["missing"][:12]))
        rows.append(("missing", f"batches {missing}{' ...' * (len(batches['missing']) > 12)}"))
    if facts["leftovers"]:
        rows.append(("leftovers", f"{facts['leftovers']} files of unfinished batches"))
    faults = facts["faults"]
    if faults["overflows"]:
        said = f"{faults['overflows']} values of eps or x0 in {faults['overflowing_runs']} runs"
        rows.append(("infinite", f"{said} are beyond the recorded precision"))
    if faults["bad_runs"]:
        first = f"step {faults['first_bad_step']} at the earliest"
        rows.append(("not finite", f"{faults['bad_runs']} runs, from {first}"))
    shown = ("pipeline", "scheduler_class", "prediction_type", "device")
    attributes = facts["attributes"]
    rows += [(name, str(attributes[name])) for name in shown if name in attributes]
    if "networks_by_step" in attributes:
        rows.append(("networks", _spans(attributes["networks_by_step"])))
    rows += [
        (
            f"rank {writer['rank']} of {writer['world_size']}",
            f"{writer['batches']} batches, {writer['runs']} runs, "
            f"{writer['first']} to {writer['last']}",
        )
        for writer in facts["writers"]
    ]
    return rows


def _spans(names: list[str]) -> str:
    """Which network ran at which steps."""
    starts = [0, *(i for i in range(1, len(names)) if names[i] != names[i - 1]), len(names)]
    return ", ".join(
        f"{names[first]} at steps {first} to {after - 1}" for first, after in pairwise(starts)
    )
