"""Growth and soft edges of masks, through a whole replay, for every strategy with a mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, distance_transform_cdt

from asced_analysis.evaluation import evaluate, populations
from asced_analysis.replay import replay
from asced_analysis.replay.recording import Recording
from asced_analysis.replay.sampling import resample
from asced_cli.main import run
from asced_stores import TrajectoryStore, open_runs

STEP, PIXELS = 6, 2
RUNS = [3, 12]
SQUARE = np.zeros((16, 16), bool)
SQUARE[5:10, 6:11] = True
MASKS = np.stack([SQUARE, SQUARE.T])
GROWN = np.stack([binary_dilation(one, np.ones((5, 5))) for one in MASKS])
AWAY = np.stack([distance_transform_cdt(~one, "chessboard") for one in MASKS])
WEIGHT = np.clip(1 - AWAY / (PIXELS + 1), 0, 1)[:, None]
STRATEGIES: dict[str, dict[str, Any]] = {
    "ttc": {},
    "state_replacement": {},
    "score_clipping": {"mad_scale": 0.1},
    "stochastic_steps": {},
    "renoise": {"where": "mask"},
    "best_of": {"where": "mask", "draws": 1, "choose": 8, "teacher": "patches"},
}


@pytest.fixture
def entering(tiny_pipeline: Any) -> Callable[[Callable[[], Any]], np.ndarray]:
    """Samples that enter every step, (step, run, channel, y, x): what the network is given."""

    def watch(sample: Callable[[], Any]) -> np.ndarray:
        seen: list[np.ndarray] = []
        hook = tiny_pipeline.unet.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].numpy().copy())
        )
        try:
            sample()
        finally:
            hook.remove()
        assert len(seen) == 10
        return np.stack(seen)

    return watch


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_grow_and_edges_blend_where_the_edit_is_made(
    strategy: str, entering: Any, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    recording = Recording(tiny_runs)
    plain = entering(lambda: resample(recording, recording.select(RUNS), tiny_pipeline))

    def edited(name: str, **edges: int) -> tuple[np.ndarray, np.ndarray]:
        out = tmp_path / name
        samples = entering(
            lambda: replay(
                tiny_runs,
                out,
                strategy=strategy,
                masks=dict(zip(RUNS, MASKS, strict=True)),
                step=STEP,
                only_flagged=True,
                pipeline=tiny_pipeline,
                **STRATEGIES[strategy],
                **edges,
            )
        )
        return samples, open_runs(out)["mask"].sel(run=RUNS).values.astype(bool)

    hard, mask = edited("hard.zarr")
    wide, grown = edited("wide.zarr", grow=PIXELS)
    soft, faded = edited("soft.zarr", soft=PIXELS)
    assert (mask == MASKS).all()
    assert (grown == GROWN).all()
    assert (faded == GROWN).all()
    first = int(np.flatnonzero((hard != plain).any((1, 2, 3, 4)))[0])  # of the edit
    changed = [(one[first] != plain[first]).any(1) for one in (hard, wide, soft)]
    assert not (changed[0] & ~MASKS).any()
    assert changed[0].sum() > 0.8 * MASKS.sum()
    for more in changed[1:]:
        assert not (more & ~GROWN).any()
        assert more.sum() > 1.5 * changed[0].sum()
    expected = plain[first] + WEIGHT * (wide[first] - plain[first])
    np.testing.assert_allclose(soft[first], expected, atol=2e-5)
    assert (soft[first] != wide[first]).any()


def test_what_is_noised_and_denoised_grows_and_fades(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    def ends(name: str, **edges: int) -> tuple[np.ndarray, np.ndarray]:
        ds = open_runs(
            replay(
                tiny_runs,
                tmp_path / name,
                strategy="noise_denoise",
                masks=dict(zip(RUNS, MASKS, strict=True)),
                step=STEP,
                pipeline=tiny_pipeline,
                **edges,
            )
        ).sel(run=RUNS)
        return ds["sample"].values, ds["mask"].values.astype(bool)

    recorded = open_runs(tiny_runs)["sample"].sel(run=RUNS).values
    hard, mask = ends("hard.zarr")
    wide, grown = ends("wide.zarr", grow=PIXELS)
    soft, faded = ends("soft.zarr", soft=PIXELS)
    assert (mask == MASKS).all()
    assert (grown == GROWN).all()
    assert (faded == GROWN).all()
    assert ((hard != recorded).any(1) == MASKS).all()
    assert ((wide != recorded).any(1) == GROWN).all()
    np.testing.assert_allclose(soft, recorded + WEIGHT * (wide - recorded), atol=1e-6)


def test_controls_have_the_edges_of_the_correction(
    tiny_runs: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the right masks a control gives what the correction gave, soft edges included."""
    np.savez(tmp_path / "masks.npz", run=RUNS, mask=MASKS)
    command = ["replay", str(tiny_runs), "--masks", str(tmp_path / "masks.npz"), "--step", "6"]
    command += ["--pipeline", str(tiny_folder), "--soft", "2", "--grow", "1"]
    assert run([*command, "--out", str(tmp_path / "soft.zarr"), "--only-flagged"]) == 0
    replayed = TrajectoryStore.open(tmp_path / "soft.zarr")
    assert (replayed.attributes["soft"], replayed.attributes["grow"]) == (2, 1)
    edges = np.stack([binary_dilation(one, np.ones((7, 7))) for one in MASKS])
    assert (open_runs(replayed)["mask"].sel(run=RUNS).values == edges).all()
    monkeypatch.setattr(populations, "RESAMPLES", 20)
    monkeypatch.setattr(
        "asced_analysis.replay.planning.control_plan", lambda plan, *rest, **named: plan
    )
    data = evaluate(tiny_runs, replayed, controls=["shuffled"], pipeline=str(tiny_folder)).to_dict()
    control = data["controls"]["shuffled"]
    effect = data["flagged_runs"]["effect"]["all"]["value"]
    assert control["mask_area"] == data["flagged_runs"]["mask_area"]
    assert control["effect"]["all"]["value"] == pytest.approx(effect, abs=1e-5)
    assert abs(effect) > 1e-4
