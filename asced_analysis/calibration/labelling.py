"""Who labels the runs of a calibration: the choice among teachers, from what is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.options import TeacherOptions
from asced_analysis.calibration.teachers import (
    Floats,
    GivenTeacher,
    RealismTeacher,
    SelfConsistencyTeacher,
    Teacher,
)
from asced_analysis.compute.source import Source
from asced_analysis.detection.given_outcomes import given_outcomes
from asced_analysis.realism.judges import SELF, choose_judge
from asced_analysis.realism.local import RealismModel
from asced_analysis.realism.self_consistency import DRAWS, level_for, level_step, network_at
from asced_stores.errors import InputError
from asced_stores.options import option, options, takes


@options
class LabellingOptions(TeacherOptions):
    """The same, and what is asked where no network is given."""

    store: Any = option(None, "Of the runs, which names the pipeline.")
    draws: int = option(DRAWS, "Of noise, for self-consistency.")


@takes(LabellingOptions)
def choose_teacher(
    source: Source, fit: npt.NDArray[np.bool_], options: LabellingOptions
) -> Teacher:
    """Make who labels runs: by default the model itself.

    Parameters
    ----------
    source : Source
    fit : bool array, shape (run,)
        Runs to learn from; only these are a population's reference.
    options : LabellingOptions
        Each by keyword.

    Raises
    ------
    InputError
        Where two teachers are asked for at once, or the model cannot be asked.
    """
    teacher, real, network = options.teacher, options.real, options.network
    outcomes, masks, better = options.outcomes, options.masks, options.better
    if better != "lower" and outcomes is None:
        raise InputError(f"better={better!r} says which outcomes are good: give outcomes as well")
    if outcomes is not None or masks is not None:
        if teacher is not None or real is not None or network is not None:
            raise InputError(
                "outcomes and masks teach by themselves: give neither teacher, real nor network"
            )
        given = given_outcomes(outcomes, masks, better=better)
        given.check(source.dataset)
        return GivenTeacher(given)
    if isinstance(teacher, RealismModel):
        return RealismTeacher(teacher)
    if teacher is not None and not isinstance(teacher, str):
        return teacher
    if teacher == SELF or (teacher is None and real is None):
        if real is not None:
            raise InputError(
                "self-consistency looks at no real images; name features, or leave out"
            )
        return _self_consistency(source, options)
    if network is not None:
        raise InputError(
            f"a network is for the teacher self-consistency, not for {teacher or 'real images'}"
        )
    known = source.dataset.isel(run=np.flatnonzero(fit))
    others = (source.dataset.isel(run=np.flatnonzero(~fit)),)
    return RealismTeacher(choose_judge(teacher, known, real=real, role="teacher", others=others))


def _self_consistency(source: Source, options: LabellingOptions) -> SelfConsistencyTeacher:
    """Ask the given network, or the recorded pipeline."""
    step = level_step(source.log_snr, level_for(int(np.prod(source.sample_shape))))
    alpha, sigma = source.alpha[step], source.sigma[step]
    if options.network is not None:
        own = network_at(options.network, alpha, sigma)

        def ask(noised: Floats, runs: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
            return np.asarray(own(noised))

    else:
        place = source.dataset.encoding.get("source") if options.store is None else options.store
        if place is None:
            raise InputError(
                "the default teacher evaluates the model, and this dataset does not say which "
                "store it is of: give the store's path, a network, real images, or another teacher"
            )
        from asced_analysis.replay.recorded_network import recorded_network

        try:
            ask = recorded_network(place, options.pipeline, step, options.call_options)
        except InputError as error:
            error.add_note(
                "The default teacher of outcome learning evaluates the model itself. Give the "
                "pipeline (its folder), a network of your own f(sample, alpha, sigma) -> "
                "predicted x0, real "
                "images, outcomes from elsewhere, or a teacher that compares with the population "
                "(patches)."
            )
            raise
    return SelfConsistencyTeacher(ask, alpha, sigma, source.log_snr[step], options.draws)
