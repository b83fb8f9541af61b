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
        judge = "judge" if _of_the_embedded_model(recording) else "patches"
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


def choose_teacher(teacher: str | RealismModel | None, recording: Any) -> RealismModel:
    """Return who chooses among draws: never the judge, who is for reporting.

    Parameters
    ----------
    teacher : {"teacher", "patches"}, RealismModel or None
        By default the embedded teacher for embedded `fashion`, else patches of the recorded
        population's own bulk, in the space that is sampled in.
    recording : Recording

    Raises
    ------
    InputError
        For the judge, or an unknown name.
    """
    if isinstance(teacher, RealismModel):
        return teacher
    if teacher is None:
        teacher = "teacher" if _of_the_embedded_model(recording) else "patches"
    if teacher not in ("teacher", "patches"):
        raise InputError(f"unknown teacher {teacher!r}; choose teacher or patches")
    return choose_judge(teacher, recording)


def _of_the_embedded_model(recording: Any) -> bool:
    """Whether runs are the embedded model's images."""
    from asced_analysis.correction.environment import is_embedded

    shape = tuple(recording.spec.sample_shape)
    return shape == (1, 32, 32) and is_embedded(recording.attributes)


def pictures(samples: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Samples as (n, channel, y, x); a video's frames are stacked as channels."""
    samples = np.asarray(samples, np.float32)
    return (
        samples
        if samples.ndim == 4
        else samples.reshape(len(samples), samples.shape[1] * samples.shape[2], *samples.shape[3:])
    )
