"""Where, when and how to correct: every idea with what it gave, on `tune`.

Masks and flags come from the learnt detector at step 12 unless a row says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from asced_analysis.correction.controls import control_masks
from asced_analysis.correction.renoise import Renoise
from asced_analysis.correction.ttc import TargetedCorrection
from asced_analysis.evaluation.intervals import mean_estimate
from asced_analysis.realism import upsample
from experiments.correction.masks import top_share
from experiments.correction.redrawing import WATCHED, draws, pick, pool_of, restarted
from experiments.correction.stages import Stage, figures, stage_of
from experiments.datasets.sets import STEPS
from experiments.tables.comparisons import note_changes


def measure_ideas(bench: Any) -> None:
    """Every idea on `tune`; results are kept as they come."""
    stage = stage_of(bench, "tune")
    found: dict[str, Any] = {}

    def note(name: str, ends: NDArray[np.float32], evaluations: float) -> None:
        found[name] = figures(stage, ends, evaluations)
        change = found[name]["change"]["value"]
        bench.say(f"{name}: {change:+.3f}, good {found[name]['good']['value']:.3f}")
        note_changes(found)
        against = differences(found, AGAINST)
        bench.keep("ideas", {"set": "tune", "rows": found, "against_controls": against})

    places(stage, note)
    again(stage, note)
    best_of(stage, note, pool_of(bench))


AGAINST = {
    f"{kind} minus {control}, step {step}": (f"{kind}, step {step}", f"{control}, step {step}")
    for step in (12, 14, 16)
    for kind, control in (
        ("learnt map, 12%", "random foreground, 12%"),
        ("learnt map, 12%", "another run's learnt map, 12%"),
        ("learnt map, 12%", "hindsight, 12%"),
        ("the whole foreground", "everywhere"),
        ("the whole foreground", "another run's foreground"),
    )
}


def differences(
    found: Mapping[str, Any], pairs: Mapping[str, tuple[str, str]]
) -> dict[str, dict[str, Any]]:
    """Differences of two ideas' changes, paired by run, of those that were tried."""
    rows: dict[str, dict[str, Any]] = {}
    for name, (one, other) in pairs.items():
        if one in found and other in found:
            changes = np.array(found[one]["changes"]) - np.array(found[other]["changes"])
            rows[name] = {"changes": changes.tolist(), **mean_estimate(changes).to_dict()}
    note_changes(rows)
    return rows


def places(stage: Stage, note: Any) -> None:
    """Where and when: masks of several areas at several steps, beside the controls."""
    masks = top_share(stage.maps)
    every = np.ones(len(masks), np.bool_)
    wrong = {
        label: control_masks(control, masks, every, stage.images, runs=stage.runs)
        for control, label in (("foreground", "random foreground"), ("shuffled", "another run's"))
    }
    hindsight = top_share(upsample(stage.before, masks.shape[1:]))
    for step in (12, 14, 16):
        cells = {"learnt map, 12%": masks, "random foreground, 12%": wrong["random foreground"]}
        if step != 14:
            cells["hindsight, 12%"] = hindsight
        if step == 12:
            cells["another run's learnt map, 12%"] = wrong["another run's"]
            cells["learnt map, 25%"] = top_share(stage.maps, 0.25)
            cells["learnt map, 50%"] = top_share(stage.maps, 0.5)
            inside = stage.foreground(12)
            cells["learnt map inside the foreground, 12%"] = top_share(stage.maps, inside=inside)
            cells["the whole foreground"] = inside
        for label, mask in cells.items():
            ends, _ = stage.sample(f"{label}-{step}", TargetedCorrection(), step, mask)
            note(f"{label}, step {step}", ends, STEPS - step)
    for step in (8, 12, 16):
        ends, _ = stage.sample(f"everywhere-{step}", Renoise(), step)
        note(f"everywhere, step {step}", ends, STEPS - step)
    for step in (8, 10, 14, 16):
        ends, _ = stage.sample(f"foreground-{step}", Renoise(where="foreground"), step)
        note(f"the whole foreground, step {step}", ends, STEPS - step)
    grown = ndimage.binary_dilation(stage.foreground(12), np.ones((1, 3, 3)))
    ends, _ = stage.sample("foreground-grown-12", TargetedCorrection(), 12, grown)
    note("the whole foreground, grown by a pixel, step 12", ends, STEPS - 12)
    other = np.roll(stage.foreground(12), 1, axis=0)
    ends, _ = stage.sample("foreground-other-12", TargetedCorrection(), 12, other)
    note("another run's foreground, step 12", ends, STEPS - 12)


def again(stage: Stage, note: Any) -> None:
    """The same mask renewed at two steps."""
    kinds = {
        "learnt map, 12%": (TargetedCorrection(renoise_steps=(16,)), top_share(stage.maps)),
        "all": (Renoise(renoise_steps=(16,)), None),
        "the whole foreground": (Renoise(renoise_steps=(16,), where="foreground"), None),
    }
    for label, (strategy, mask) in kinds.items():
        ends, _ = stage.sample(f"{label}-again", strategy, 12, mask)
        note(f"{label}, at steps 12 and 16", ends, STEPS - 12)


def best_of(stage: Stage, note: Any, pool: Any) -> None:
    """The best of several renewals, as the two teachers foresee them; and new draws."""
    for step in (12,):
        ends, views = draws(stage, step, 4, WATCHED)
        for count in (2, 4):
            for at, view in views.items():
                paid = count * (at - step) + (STEPS - at)
                text = "the end" if at == STEPS else f"step {at}"
                note(
                    f"best of {count} renewals of the foreground at step {step}, chosen at {text}",
                    pick(ends[:count], view[:count]),
                    paid,
                )
    for tries in (1, 2, 4, 8):
        ends, paid = restarted(stage, pool, tries)
        note(f"restart, at most {tries} tries, judged at step 12", ends, paid)
