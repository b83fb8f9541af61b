"""What a corrector that works beside a recorder says of each run, as the store keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from asced_stores import VariableSpec
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Correcting(Protocol):
    """Corrects runs while they are recorded, for example `asced_analysis.correction.Corrector`."""

    def correction(self) -> dict[str, Any] | None:
        """Say how, as attributes of a store; None where it does not."""

    def corrected(self) -> dict[str, Any]:
        """``flagged``, ``score`` and ``mask`` of each run of the last call."""


def corrector_among(listeners: Iterable[Correcting]) -> Correcting | None:
    """The one that corrects.

    Raises
    ------
    InputError
        Where there are several: a store has one mask a run.
    """
    found = [one for one in listeners if one.correction() is not None]
    if len(found) > 1:
        raise InputError(
            f"{len(found)} correctors work on this pipeline, and a recorder keeps what one finds: "
            "attach one"
        )
    return found[0] if found else None


def correction_facts(corrector: Correcting | None) -> dict[str, Any]:
    """What a store says of the correction, as attributes."""
    if corrector is None:
        return {}
    return {"correction": json.loads(json.dumps(corrector.correction()))}  # as it is read again


def correction_variables(
    corrector: Correcting | None, sample_shape: Sequence[int]
) -> tuple[VariableSpec, ...]:
    """Variables of a store whose runs are corrected."""
    if corrector is None:
        return ()
    return (
        VariableSpec("mask", ("y", "x"), (sample_shape[-2], sample_shape[-1]), "uint8"),
        VariableSpec("flagged", (), (), "bool"),
        VariableSpec("score", (), (), "float64"),
    )


def correction_values(
    corrector: Correcting | None, runs: int, sample_shape: Sequence[int]
) -> tuple[dict[str, Any], dict[str, NDArray[np.uint8]]]:
    """Numbers by run and arrays of the call that has ended; not flagged where nothing was found."""
    if corrector is None:
        return {}, {}
    found = corrector.corrected()
    if len(found["flagged"]) != runs:
        found = {"flagged": np.zeros(runs, np.bool_), "score": np.full(runs, np.nan)}
    mask = np.zeros((runs, sample_shape[-2], sample_shape[-1]), np.uint8)
    if "mask" in found:
        mask[...] = found["mask"]
    return {"flagged": found["flagged"], "score": found["score"]}, {"mask": mask}


def check_correction(attributes: Mapping[str, Any], corrector: Correcting | None) -> None:
    """Refuse a call that is corrected otherwise than those before it in the store.

    Raises
    ------
    InputError
    """
    before, now = attributes.get("correction"), correction_facts(corrector).get("correction")
    if before == now:
        return
    other = ""
    if before and now and before["strategy"] == now["strategy"]:
        other = " with other settings or thresholds"
    raise InputError(
        f"this call is {_how(now)}{other}, and those before it in the store are {_how(before)}: "
        "one store holds one way of sampling; record it to another store"
    )


def _how(correction: Mapping[str, Any] | None) -> str:
    return "not corrected" if correction is None else f"corrected by {correction['strategy']}"
