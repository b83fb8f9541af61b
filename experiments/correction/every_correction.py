"""Every strategy with every mask, on all runs of a set: the ends, kept in the cache by content."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.controls import control_masks
from asced_analysis.realism.pictures import as_pictures as pictures
from asced_analysis.replay import Branch, branch, replay
from asced_stores import open_runs
from experiments.correction.masks import top_share

Masks = NDArray[np.bool_]
Ends = dict[str, NDArray[np.float32]]

BRANCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "ttc, additive": ("ttc", {}),
    "ttc, multiplicative 0.2": ("ttc", {"noise_scale": 0.2, "perturbation": "multiplicative"}),
    "state replacement": ("state_replacement", {}),
    "stochastic steps": ("stochastic_steps", {}),
}
AFTERWARDS = "noise and denoise"
BEFOREHAND = "score clipping"
STRATEGIES = (*BRANCHES, BEFOREHAND, AFTERWARDS)
HINDSIGHT, EVERYWHERE = "hindsight", "everywhere"
CONTROLS = ("learnt mask of another run", "random foreground")


@dataclass(frozen=True)
class Target:
    """Runs to be corrected.

    Attributes
    ----------
    store : Path
        Of these runs alone, with a checkpoint at `step`.
    runs : int64 array, shape (n,)
    images : float32 array, shape (n, channel, y, x)
        Their ends as recorded.
    step : int
        ``T_c``.
    clip : callable, optional
        Score clipping where a plain replay from the start would not bring the recording back: from
        store, masks by run, step and pipeline to ends.
    """

    store: Path
    runs: NDArray[np.int64]
    images: NDArray[np.float32]
    step: int
    clip: Callable[[Path, dict[int, Masks], int, Any], NDArray[np.float32]] | None = None


def masks_of(
    target: Target, maps: Mapping[str, NDArray[Any]], truth: NDArray[Any]
) -> dict[str, Masks]:
    """Masks of one area: of each map's highest places, of hindsight, and of the controls.

    Parameters
    ----------
    target : Target
    maps : mapping of detector to array, shape (n, y, x)
        The first one's masks are what the controls of equal area are made from.
    truth : array, shape (n, y, x)
        Highest where the end is worst.
    """
    masks = {name: top_share(one) for name, one in maps.items()}
    masks[HINDSIGHT] = top_share(truth)
    main = next(iter(masks.values()))
    every = np.ones(len(main), np.bool_)
    for label, control in zip(CONTROLS, ("shuffled", "foreground"), strict=True):
        masks[label] = control_masks(control, main, every, target.images, runs=target.runs)
    return masks | {EVERYWHERE: np.ones_like(main)}


def corrected(
    target: Target,
    masks: Masks,
    name: str,
    folder: Path,
    pipe: Any,
    strategies: Sequence[str] = STRATEGIES,
) -> Ends:
    """Ends of all runs by strategy, with these masks; sampled once."""
    digest = hashlib.sha256(target.runs.tobytes() + np.packbits(masks).tobytes())
    digest.update(repr((BRANCHES, target.step, *strategies)).encode())
    path = folder / f"{name.replace(',', '').replace(' ', '-')}-{digest.hexdigest()[:10]}.npz"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, **_sampled(target, masks, pipe, strategies))
        part.rename(path)
    with np.load(path) as kept:
        return {strategy: kept[strategy] for strategy in kept.files}


def _sampled(target: Target, masks: Masks, pipe: Any, strategies: Sequence[str]) -> Ends:
    given = {int(run): mask for run, mask in zip(target.runs, masks, strict=True)}
    branched = [name for name in BRANCHES if name in strategies]
    branches = [
        Branch(target.step, BRANCHES[name][0], parameters=BRANCHES[name][1]) for name in branched
    ]
    found: Ends = {}
    with tempfile.TemporaryDirectory() as folder:

        def replayed(strategy: str, start: Any) -> NDArray[np.float32]:
            out = replay(
                target.store,
                Path(folder) / f"{strategy}.zarr",
                strategy=strategy,
                masks=given,
                step=target.step,
                start=start,
                pipeline=pipe,
            )
            return pictures(open_runs(out.path)["sample"].values)

        out = branch(
            target.store, Path(folder) / "branches.zarr", branches, masks=given, pipeline=pipe
        )
        ds = open_runs(out.path)
        if not np.array_equal(ds["run"].values, target.runs):
            raise RuntimeError(f"{target.store} does not hold the runs to be corrected in order")
        for number, name in enumerate(branched):
            found[name] = pictures(ds["branch_sample"].isel(branch=number).values)
        if BEFOREHAND in strategies:
            found[BEFOREHAND] = (
                replayed("score_clipping", "init")
                if target.clip is None
                else target.clip(target.store, given, target.step, pipe)
            )
        if AFTERWARDS in strategies:
            found[AFTERWARDS] = replayed("noise_denoise", target.step)
    return found
