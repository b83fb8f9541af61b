"""One replay as a job: what its batches share, and how one of them is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.corrector import Corrector
from asced_analysis.correction.detecting import Network
from asced_analysis.correction.strategy import Strategy
from asced_analysis.detection.registry import extra_evaluations
from asced_analysis.replay.decoding import Decoder
from asced_analysis.replay.planning import Plan
from asced_analysis.replay.recording import Batch, Recording
from asced_analysis.replay.sampling import earlier_x0, resample
from asced_analysis.thresholds.document import Thresholds
from asced_recorders.pipelines.provenance import execution_device

if TYPE_CHECKING:
    from asced_analysis.realism import RealismModel

Facts = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """One replay: everything that its batches share.

    Attributes
    ----------
    recording : Recording
    pipe : DiffusionPipeline
        Of the recorded model and scheduler.
    decoder : Decoder
        Makes images of what is sampled.
    strategy : Strategy
    target : int
        ``T_c``.
    begin : int
        Step at which sampling begins: 0, or a recorded checkpoint.
    seed : int
        Of the correction's noise.
    plan : Plan or None
        Masks known beforehand; None: the thresholds' detector runs in the loop.
    thresholds : Thresholds or None
    grow : int or None
    soft : int
    network : callable or None
        For the lookahead of the thresholds, of every run.
    teacher : RealismModel or None
        Chooses among several draws.
    """

    recording: Recording
    pipe: Any
    decoder: Decoder
    strategy: Strategy
    target: int
    begin: int = 0
    seed: int = 0
    plan: Plan | None = None
    thresholds: Thresholds | None = None
    grow: int | None = None
    soft: int = 0
    network: Network | None = None
    teacher: RealismModel | None = None

    @property
    def extra_evaluations(self) -> int:
        """Evaluations that the detector needs beyond sampling, of every run."""
        return 0 if self.network is None else extra_evaluations(self.thresholds)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a sample."""
        return self.recording.spec.sample_shape[-2], self.recording.spec.sample_shape[-1]

    @property
    def extra(self) -> int:
        """Evaluations that a start at a checkpoint costs beside the remaining steps."""
        return int(self.begin > 0 and not self.recording.is_ours(self.pipe))

    def sample(self, batch: Batch) -> tuple[NDArray[np.float32], Facts]:
        """Sample a batch with the correction: final samples, and what was done by run."""
        count = len(batch.runs)
        steps = self.recording.steps
        facts: Facts = {
            "mask": np.zeros((count, *self.shape), np.uint8),
            "flagged": np.zeros(count, np.bool_),
            "score": np.full(count, np.nan),
            "evaluations": np.full(
                count, float(steps - self.begin + self.extra + self.extra_evaluations)
            ),
        }
        if not self.strategy.edits:
            if self.recording.attributes.get("correction"):  # these runs come back without it
                for name in ("mask", "flagged", "score"):
                    facts[name] = self.recording.read(batch, name)
            return resample(self.recording, batch, self.pipe, start=self.begin), facts
        if not self.strategy.in_loop:
            return self._further_pass(batch, facts)
        corrector = self.corrector()
        given: dict[str, Any] = {}
        if self.plan is not None:
            given = self.plan.assignment(batch, self.shape)
        before = earlier_x0(self.recording, batch, self.begin, execution_device(self.pipe))
        groups = batch.groups(self.thresholds)
        corrector.assign(batch.runs, x0=before, groups=groups, **given)
        samples = resample(
            self.recording,
            batch,
            self.pipe,
            start=self.begin,
            corrector=corrector,
        )
        facts["mask"] = np.stack([report.mask for report in corrector.report]).astype(np.uint8)
        facts["flagged"] = np.array([report.flagged for report in corrector.report])
        facts["score"] = np.array([report.score for report in corrector.report])
        return samples, facts

    def corrector(self, strategy: Strategy | None = None, seed: int | None = None) -> Corrector:
        """Make a corrector for one batch; of another strategy or seed where they are given."""
        return Corrector(
            self.thresholds,
            strategy=self.strategy if strategy is None else strategy,
            seed=self.seed if seed is None else seed,
            step=self.target,
            grow=self.grow,
            soft=self.soft,
            network=self.network,
            dtype=self.recording.spec.dtype,
        )

    def _further_pass(self, batch: Batch, facts: Facts) -> tuple[NDArray[np.float32], Facts]:
        """Strategies that sample a flagged run more than once."""
        assert self.plan is not None
        masks, flagged, scores = self.plan.of(batch, self.shape)
        if self.strategy.region == "everywhere":
            masks = masks | flagged[:, None, None]
        facts |= {"mask": masks.astype(np.uint8), "flagged": flagged, "score": scores}
        facts["evaluations"] = np.full(len(batch.runs), float(self.extra_evaluations))
        samples = self.recording.read(batch, "sample").copy()
        if flagged.any():
            chosen = self.recording.select(batch.runs[flagged])
            new, facts["mask"][flagged], paid = self.strategy.sample_again(
                self, chosen, masks[flagged]
            )
            samples[flagged] = new
            facts["evaluations"][flagged] += paid
        return samples, facts
