"""Half a minute of one run: it breaks, its dynamics show it, and it is corrected.

The run is sampled once more, with and without the correction, since a replay keeps the end of a
corrected run and not its steps. `make_figures.py` calls this.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from asced_analysis import Corrector, Thresholds, open_runs
from asced_analysis.plots import style
from asced_recorders import load_pipeline
from asced_recorders.pipelines.sampling import run_generators, sample_unconditional
from asced_recorders.tap.events import ListenerChain, StepEvent, TapListener

SECONDS = 30.0
WIDTH, HEIGHT, DOTS = 8.4, 3.1, 100


class Kept(TapListener):
    """Predicted x0 of every step."""

    def __init__(self) -> None:
        self.x0: list[NDArray[np.float32]] = []

    def before_step(self, event: StepEvent) -> None:
        """Keep what the model expects."""
        self.x0.append(event.x0[0].float().cpu().numpy())


@dataclass(frozen=True)
class Pass:
    """One time that the run was sampled.

    Attributes
    ----------
    x0 : array, shape (step, channel, y, x)
        What the model expected.
    end : array, shape (channel, y, x)
    """

    x0: NDArray[np.float32]
    end: NDArray[np.float32]

    def picture(self, step: int) -> NDArray[np.float32]:
        """What is expected at a step; after the last, the end."""
        values = self.x0[step] if step < len(self.x0) else self.end
        shown = np.clip((values + 1) / 2, 0, 1).transpose(1, 2, 0)
        return shown[..., 0] if shown.shape[-1] == 1 else shown

    def revised(self, step: int) -> NDArray[np.float32]:
        """How much each pixel was revised since the step before."""
        found: NDArray[np.float32] = np.abs(self.x0[step] - self.x0[max(0, step - 1)]).max(0)
        return found


def sample(pipe: Any, x_init: Any, steps: int, seed: int, *listeners: TapListener) -> Pass:
    """Sample one run with its own noise."""
    kept = Kept()
    pipe.scheduler.set_timesteps(steps)
    end = sample_unconditional(
        pipe,
        x_init=x_init,
        steps=steps,
        generators=run_generators([seed]),
        listener=ListenerChain(*listeners, kept),
    )
    return Pass(np.stack(kept.x0), end[0].float().cpu().numpy())


def draw(runs: Path, thresholds: Path, run: int, out: Path) -> Path:
    """Sample a run twice, and write the animation.

    Parameters
    ----------
    runs : path
        Its recording, of a model of pixels.
    thresholds : path
        That flag it.
    run : int
    out : path
        ``.webp`` or ``.gif``.
    """
    ds = open_runs(runs).sel(run=run)
    pipe = load_pipeline(ds.attrs["pipeline"])
    x_init = torch.from_numpy(np.asarray(ds["x_init"].values, np.float32))[None]
    steps, seed = int(ds.sizes["step"]), int(ds["seed"])
    plain = sample(pipe, x_init, steps, seed)
    corrector = Corrector(Thresholds.load(thresholds))
    corrector.assign([run])
    corrected = sample(pipe, x_init, steps, seed, corrector)
    (report,) = corrector.report
    if not report.flagged:
        raise SystemExit(f"run {run} is not flagged by {thresholds}")
    edit = corrector.target(pipe_table(pipe, steps))
    usual = usual_revision(runs)
    frames = list(moments(plain, corrected, report.mask, edit, corrector.strategy.title, usual))
    pictures, seconds = zip(*frames, strict=True)
    total = SECONDS / sum(seconds)
    pictures[0].save(
        out,
        save_all=True,
        append_images=pictures[1:],
        duration=[round(1000 * total * part) for part in seconds],
        loop=0,
        **({"quality": 60, "method": 6} if out.suffix == ".webp" else {"optimize": True}),
    )
    return out


def pipe_table(pipe: Any, steps: int) -> Any:
    """The sampler's steps."""
    from asced_recorders.tap.schedulers import step_table

    pipe.scheduler.set_timesteps(steps)
    return step_table(pipe.scheduler)


def usual_revision(runs: Path, most: int = 100) -> NDArray[np.float32]:
    """Mean revision of other runs by step: 5th and 95th percentile, shape (2, step - 1)."""
    x0 = open_runs(runs)["x0"].isel(run=slice(most)).astype("float32")
    change = abs(x0.diff("step")).max("channel").mean(("y", "x")).transpose("run", "step").values
    found: NDArray[np.float32] = np.quantile(change, (0.05, 0.95), axis=0)
    return found


def moments(
    plain: Pass,
    corrected: Pass,
    mask: NDArray[np.bool_],
    edit: int,
    correction: str,
    usual: NDArray[np.float32],
) -> Iterator[tuple[Image.Image, float]]:
    """Each frame, and for how many parts of the time it stays."""
    steps = len(plain.x0)
    more = plain.revised(edit - 1).mean() > usual[1, edit - 2]
    said = (
        (0, "One run, from noise. Left: the image that the model expects at each step."),
        (
            edit // 3,
            "Then what it revises at each step"
            + (", and how much: more than 95 % of the runs by now." if more else ", and how much."),
        ),
        (edit, f"Step {edit}: flagged. It could be corrected now; first, what becomes of it."),
        (edit + 2, "Sampled on as it is: later steps do not repair it."),
    )
    for step in range(1, steps + 1):
        words = [text for begin, text in said if step >= begin][-1]
        shown = frame(plain, None, mask if step == edit else None, step, words, usual)
        yield shown, 3.0 if step in (edit, steps) else 1.0
    again = f"The same run again: at step {edit} it is corrected ({correction}) and sampled on."
    for step in range(edit, steps + 1):
        ended = step == steps
        words = "As sampled, and corrected while it was sampled." if ended else again
        shown = frame(plain, corrected, mask if step == edit else None, step, words, usual)
        yield shown, 6.0 if ended else 3.0 if step == edit else 1.0


def frame(
    plain: Pass,
    corrected: Pass | None,
    mask: NDArray[np.bool_] | None,
    step: int,
    words: str,
    usual: NDArray[np.float32],
) -> Image.Image:
    """One picture: expected, revised, corrected, and the curve as far as it has come."""
    of, last = corrected or plain, len(plain.x0) - 1
    with style.look():
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DOTS, layout="constrained")
        figure.suptitle(words, fontsize=11, x=0.02, ha="left")
        expected, revised, beside, curve = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.35])
        expected.imshow(plain.picture(step), cmap="gray", vmin=0, vmax=1)
        expected.set_title("as sampled", fontsize=10)
        values = of.revised(min(step, last))
        top = float(np.quantile(of.revised(min(step, last)), 0.995)) or 1.0
        revised.imshow(values, cmap=style.SEQUENTIAL, vmin=0, vmax=top)
        revised.set_title("what is revised", fontsize=10)
        if corrected is None:
            beside.imshow(np.ones((2, 2)), cmap="gray", vmin=0, vmax=1)
        else:
            beside.imshow(corrected.picture(step), cmap="gray", vmin=0, vmax=1)
            beside.set_title("corrected", fontsize=10)
        for axes in (expected, revised, beside):
            axes.set(xticks=[], yticks=[])
        if mask is not None:
            revised.set_title("what is renewed", fontsize=10)
            revised.contour(mask, [0.5], colors=[style.ORANGE], linewidths=1)
        for axis in ("top", "bottom", "left", "right"):
            beside.spines[axis].set_visible(corrected is not None)
        _curve(curve, plain, corrected, min(step, last), usual)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _curve(
    axes: Any, plain: Pass, corrected: Pass | None, step: int, usual: NDArray[np.float32]
) -> None:
    """Mean revision by step, as far as it has come, over what is usual."""
    known = range(1, len(plain.x0))
    axes.fill_between(known, *usual, color=style.GREY, alpha=0.2, lw=0, label="90 % of runs")
    passes = [(plain, style.VERMILION, "as sampled")]
    if corrected is not None:
        passes.append((corrected, style.BLUE, "corrected"))
    high = max(float(plain.revised(1).mean()), 1e-3)
    for one, colour, name in passes:
        reach = len(plain.x0) - 1 if corrected is not None and one is plain else step
        values = [float(one.revised(k).mean()) for k in range(1, reach + 1)]
        axes.plot(range(1, reach + 1), values, color=colour, label=name, lw=2)
    axes.axvline(step, color=style.GREY, lw=1)
    axes.set(xlim=(0, len(plain.x0) - 1), ylim=(high / 300, high * 1.5), yscale="log")
    axes.set_xlabel(style.axis_label("step"), fontsize=9)
    axes.set_title("mean revision", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.minorticks_off()
    axes.set_yticks([10.0**power for power in range(math.floor(math.log10(high / 300)) + 1, 1)])
    axes.legend(fontsize=8, loc="upper right")
