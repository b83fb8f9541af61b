"""Which judge looks at a population."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism.local import RealismModel
from asced_stores.errors import InputError

JUDGES = ("judge", "teacher", "patches")
REFERENCES = 1000


def choose_judge(judge: str | RealismModel | None, recording: Any) -> RealismModel:
    """Return the judge asked for; by default the embedded one for embedded `fashion`, else patches.

    Parameters
    ----------
    judge : {"judge", "teacher", "patches"}, RealismModel or None
        ``patches`` are whitened patches of the recorded population's own bulk: they say what is
        unusual, not what is unreal.
    recording : Recording
    """
    if isinstance(judge, RealismModel):
        return judge
    if judge is None:
        from asced_analysis.replay.environment import is_embedded

        shape = tuple(recording.spec.sample_shape)
        known = shape == (1, 32, 32) and is_embedded(recording.attributes)
        judge = "judge" if known else "patches"
    if judge in ("judge", "teacher"):
        from asced_analysis.realism.embedded import load_embedded

        return load_embedded(judge)
    if judge != "patches":
        raise InputError(f"unknown judge {judge!r}; choose one of {', '.join(JUDGES)}")
    from asced_analysis.realism.patches import patch_model

    runs = recording.dataset["run"].values
    complete = runs[recording.dataset["status"].values == 1]
    chosen = np.random.default_rng(0).permutation(complete)[:REFERENCES]
    images = pictures(recording.read(recording.select(np.sort(chosen)), "sample"))
    return patch_model(images, name="patches of the population's own samples")


def pictures(samples: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Samples as (n, channel, y, x); a video's frames are stacked as channels."""
    samples = np.asarray(samples, np.float32)
    return (
        samples
        if samples.ndim == 4
        else samples.reshape(len(samples), samples.shape[1] * samples.shape[2], *samples.shape[3:])
    )
