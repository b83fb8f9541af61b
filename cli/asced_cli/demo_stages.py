"""The whole path on one pipeline, for ``asced demo``: from recording to report."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from asced_cli.options import progress_callback

EMBEDDED = "fashion"
CALIBRATED = 0.4
"""Share of the runs that sets the level."""
FEWEST_STEPS = 4
LEARNING = 100
"""Runs without which there is nothing to learn from how runs end."""
THINGS = (
    "a red fox", "an old sailing boat", "a bowl of fruit", "a stone bridge", "a white horse",
    "a woman with a hat", "a steam train", "a glass vase", "a wooden cabin", "a grey cat",
    "a bicycle", "a market stall", "a lighthouse", "a violin", "two children playing",
    "a cup of coffee", "an owl", "a vintage car", "a bunch of tulips", "a mountain hut",
)  # fmt: skip
PLACES = (
    "in the snow", "at sunset", "in a quiet street", "beside a river", "in soft morning light",
    "under a cloudy sky", "in a garden", "by a window", "at night", "in an autumn forest",
    "on a wooden table", "seen from above", "in the rain", "in front of a brick wall",
    "as a watercolour", "as a black and white photograph", "in the fog", "at the seaside",
    "in bright sunlight", "in a meadow",
)  # fmt: skip


def plain_prompts(count: int) -> list[str]:
    """As many different prompts as runs, as long as there are any; then they come again."""
    size = len(PLACES)
    return [
        f"{THINGS[i % len(THINGS)]} {PLACES[(i + i // len(THINGS)) % size]}" for i in range(count)
    ]


@dataclass
class Demo:
    """One demonstration: what it was asked for, and what came of it so far.

    Attributes
    ----------
    pipeline : str
        Embedded model, folder or name on the hub.
    out : Path
        Folder of what is written.
    runs, steps, batch_size, seed, rate
        Of the recording, and the false-alarm rate.
    sampled : dict
        What `record` needs beside these: prompts or labels.
    real : str or None
        Real images, for teacher and judge.
    others : dict
        Options of other corrections to compare with, by name.
    overwrite : bool
    """

    pipeline: str
    out: Path
    runs: int
    steps: int
    batch_size: int
    seed: int
    rate: float
    sampled: dict[str, Any] = field(default_factory=dict)
    real: str | None = None
    others: dict[str, dict[str, Any]] = field(default_factory=dict)
    overwrite: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        """A file of the folder."""
        return self.files.setdefault(name, self.out / name)

    @property
    def embedded(self) -> bool:
        """Whether it is the model that brings its own teacher and judge."""
        return self.pipeline == EMBEDDED

    @contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        """Say what is done, and how long it took."""
        click.echo(f"{name:<10} {what} ...", err=True)
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started

    # ---- the stages

    def record(self) -> None:
        """Runs into a store, and every chunk against its checksum."""
        from asced_recorders import record
        from asced_stores.errors import StoreError

        what = f"{self.runs} runs of {self.name} in {self.steps} steps"
        with self.stage("record", what), progress_callback("  runs") as bar:
            store = record(
                self.pipeline,
                self.file("runs.zarr"),
                runs=self.runs,
                steps=self.steps,
                batch_size=self.batch_size,
                seed=self.seed,
                overwrite=self.overwrite,
                progress=lambda event: bar(event.get("done", 0), self.runs) if bar else None,
                **self.sampled,
            )
            batches = len(store.committed_batches())
            self.results["record"] = f"{self.runs} runs, {batches} batches"
        with self.stage("verify", "every chunk against its checksum"):
            verified = store.verify()
            if not verified.ok:
                raise StoreError(f"{store.path} is damaged: {verified.problems[0]}")
            self.results["verify"] = "all chunks match"

    @property
    def name(self) -> str:
        """Of the pipeline, without its folder."""
        from asced_recorders.pipelines.loading import pipeline_name

        return pipeline_name(self.pipeline)

    def analyse(self) -> tuple[Any, Any]:
        """Statistics of the dynamics, and phases."""
        from asced_analysis import open_runs, segment_phases, step_statistics
        from asced_analysis.report.sections import phases_in_words
        from asced_analysis.statistics.saving import save

        ds = open_runs(self.file("runs.zarr"))
        with self.stage("stats", "exact medians and quantiles of the dynamics by step"):
            statistics = step_statistics(ds)
            save(statistics, self.file("stats.zarr"), overwrite=self.overwrite)
            self.results["stats"] = f"{int(statistics['count'].max()):,} values a step"
        with self.stage("phases", "Profiling | Mutation | Refinement"):
            phases = segment_phases(ds)
            save(phases, self.file("phases.json"), overwrite=self.overwrite)
            self.results["phases"] = phases_in_words(phases)
        return statistics, phases

    def calibrate(self, pipe: Any) -> Any:
        """Learn how runs end badly; where that can't be learnt, flag what is unusual."""
        from asced_analysis import Thresholds, calibrate
        from asced_analysis.thresholds.wording import measured_in_words
        from asced_stores.errors import InputError

        common: dict[str, Any] = {"false_alarm_rate": self.rate, "pipeline": pipe}
        learning: dict[str, Any] = {"real": self.real}
        if self.embedded:  # its teachers come with it, with real images behind them
            learning = {"teacher": "committee", "outcome": {"within_content": False}}
        with self.stage("calibrate", f"learn how runs end badly; false-alarm rate {self.rate:g}"):
            try:
                thresholds = calibrate(
                    self.file("runs.zarr"), "outcome", method="outcome", **common, **learning
                )
                how = "learnt from how runs end"
            except InputError as error:
                click.echo(f"  not learnt: {error}", err=True)
                thresholds = calibrate(self.file("runs.zarr"), "calibrated", **common)
                how = "by what is unusual, since how runs end could not be learnt"
            thresholds.save(self.file("thresholds.json"), overwrite=self.overwrite)
            kept = thresholds.guarantee
            self.results["calibrate"] = (
                f"{how}; promised {kept.promised:.1%}; flagged: {measured_in_words(kept)}"
            )
        return Thresholds.load(self.file("thresholds.json"))

    def replay(self, thresholds: Any, pipe: Any) -> int:
        """Flagged runs again, corrected; how many there are."""
        from asced_analysis import open_runs
        from asced_analysis.replay import replay

        with (
            self.stage("replay", f"flagged runs again, corrected: {thresholds.correction}"),
            progress_callback("  runs") as bar,
        ):
            corrected = replay(
                self.file("runs.zarr"),
                self.file("corrected.zarr"),
                thresholds=thresholds,
                pipeline=pipe,
                overwrite=self.overwrite,
                progress=bar,
            )
            flagged = int(open_runs(corrected.path)["flagged"].sum())
            self.results["replay"] = f"{flagged} of {self.runs} runs flagged and corrected"
        return flagged

    def evaluate(self, pipe: Any) -> Any:
        """What the judge says of it; None where there is too little to judge."""
        from asced_analysis import evaluate
        from asced_stores.errors import InputError

        with (
            self.stage("evaluate", "against a judge that did not teach, with controls"),
            progress_callback("  parts") as bar,
        ):
            try:
                evaluation = evaluate(
                    self.file("runs.zarr"),
                    self.file("corrected.zarr"),
                    pipeline=pipe,
                    real=self.real,
                    progress=bar,
                )
            except InputError as error:
                self.results["evaluate"] = f"not judged: {error}"
                return None
            evaluation.save(self.file("evaluation.json"), overwrite=self.overwrite)
            self.results["evaluate"] = evaluation.summary()
        return evaluation

    def compare(self, thresholds: Any, pipe: Any) -> list[Any]:
        """The same runs by other corrections."""
        from asced_analysis import evaluate
        from asced_analysis.replay import replay

        found: list[Any] = []
        own = thresholds.correction.strategy
        others = {n: options for n, options in self.others.items() if options["strategy"] != own}
        if not others:
            return found
        with self.stage("compare", f"the same runs by {' and '.join(others)}"):
            for name, options in others.items():
                replayed = replay(
                    self.file("runs.zarr"),
                    self.file(f"{name}.zarr"),
                    thresholds=thresholds,
                    pipeline=pipe,
                    only_flagged=True,
                    overwrite=self.overwrite,
                    **options,
                )
                found.append(
                    evaluate(
                        self.file("runs.zarr"),
                        replayed,
                        pipeline=pipe,
                        real=self.real,
                        controls=self.embedded,
                    )
                )
                found[-1].save(self.file(f"{name}.json"), overwrite=self.overwrite)
            self.results["compare"] = f"{len(found)} other corrections of the same runs"
        return found


def refuse_too_few(runs: int, rate: float, prompts: int | None = None) -> None:
    """Say before anything is sampled that these runs can't keep this rate.

    Parameters
    ----------
    runs : int
    rate : float
    prompts : int, optional
        How many different ones are given; fewer than runs repeat, and then each counts once.

    Raises
    ------
    InputError
    """
    from asced_stores.errors import InputError

    needed = math.ceil(math.ceil(1 / rate - 1) / CALIBRATED) if 0 < rate < 1 else 0
    if runs < needed:
        raise InputError(
            f"{runs} runs can't keep a false-alarm rate of {rate:g}: give {needed} or more "
            f"(--runs {needed}; {LEARNING} to learn how runs end), or a larger --false-alarm-rate"
        )
    if prompts is not None and prompts < min(runs, needed):
        raise InputError(
            f"{prompts} different prompts can't keep a false-alarm rate of {rate:g}, since runs "
            f"of one prompt count once: give {needed} or more, none (plain scenes), or a larger "
            "--false-alarm-rate"
        )


def plan_demo(
    pipeline: str,
    *,
    runs: int | None,
    steps: int | None,
    batch_size: int | None,
    prompts: str | None,
    classes: Sequence[int],
    **more: Any,
) -> Demo:
    """Defaults for the kind of pipeline, where nothing else was asked for.

    Raises
    ------
    InputError
        Where it takes what only its user has, such as images.
    """
    from asced_recorders.pipelines.kinds import kind_of
    from asced_recorders.pipelines.loading import load_pipeline
    from asced_recorders.pipelines.prompts import read_prompts
    from asced_stores.errors import InputError

    if more.get("real"):  # read at any size: bad ones are refused before anything is sampled
        from asced_analysis.realism.real_images import read_real

        read_real(more["real"], (3, 64, 64))
    kind = kind_of(load_pipeline(pipeline))
    embedded = pipeline == EMBEDDED
    runs = runs or (512 if embedded else 200)
    sampled: dict[str, Any] = {}
    if kind.takes in ("images", "prompt embeddings", "something else"):
        raise InputError(
            f"this pipeline takes {kind.takes}: record your own calls (`with Recorder(pipe, "
            "store): pipe(...)`), then calibrate, replay, evaluate and report, as "
            "docs/own-pipeline.md shows"
        )
    if prompts is not None and kind.takes != "prompts":
        raise InputError(f"this pipeline takes {kind.takes}: leave --prompts out")
    if kind.takes == "prompts":
        sampled["prompts"] = prompts or plain_prompts(runs)
    if kind.takes == "classes":
        sampled["labels"] = list(classes) or list(range(min(kind.classes, runs)))
    others: dict[str, dict[str, Any]] = {"ttc": {"strategy": "ttc"}}
    if not kind.own_loop:
        others["best"] = {"strategy": "best_of", "draws": 2}
    demo = Demo(
        pipeline,
        runs=runs,
        steps=steps or kind.steps,
        batch_size=batch_size or (64 if embedded else kind.batch_size),
        sampled=sampled,
        others=others,
        **more,
    )
    if demo.steps < FEWEST_STEPS:
        raise InputError(
            f"{demo.steps} steps are too few to tell phases apart, which the report does: give "
            f"--steps {FEWEST_STEPS} or more, or record, calibrate and replay command by command"
        )
    given = read_prompts(prompts) if prompts is not None else None
    different = None if given is None else len({one.prompt for one in given[:runs]})
    refuse_too_few(demo.runs, demo.rate, different)
    return demo
