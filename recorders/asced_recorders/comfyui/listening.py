"""Listeners of the recorder's tap on a model of ComfyUI: every sampler's steps, as they are taken.

Nothing of ComfyUI is imported: a MODEL takes wrappers around its sampler and around a prediction.
What is told is what the sampler is handed, after guidance and every post-CFG function. Such a
function of our own would not do: guiders of several prompts add to the prediction after these have
run, and a sample can't be edited there before the model is asked about it.

Two ways lead a sampler through an edit. Most let the sample that they hold be written over, and
what the model said before is renewed where they remember it. Solvers that remember something made
of it (LMS, IPNDM, DEIS, UniPC) are stopped and run once more: up to the edit the model is not
asked, they get what it said before, and in edited places what it says now, from a start on the
straight path to it. So they arrive at the edited sample by their own steps, and all that they
remember fits it; elsewhere they repeat themselves to the bit.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from asced_recorders.comfyui.levels import noise_level
from asced_recorders.comfyui.rehearsal import (
    Rehearsal,
    SamplerCall,
    lasting,
    rehearse,
    straight,
)
from asced_recorders.tap.events import ListenerChain, StepEvent, TapListener
from asced_recorders.tap.schedulers import StepTable
from asced_stores.errors import InputError
from asced_stores.format.noise_levels import log_snr

if TYPE_CHECKING:
    from torch import Tensor

NEWER = "update ComfyUI to 0.3.52 or newer, which has wrappers around predictions"
KEY = "asced"
LISTENERS, RUN = "asced_listeners", "asced_run"  # in transformer_options


@dataclass
class Sampling(SamplerCall):
    """A call of a sampler, before it begins.

    Attributes
    ----------
    shape : tuple of int
        Of the samples, in the recorded order: (run, [frame,] channel, y, x).
    table : StepTable
        The steps that will be taken.
    plan : Rehearsal
    inpaints : bool
        Whether a mask is put over the sample at every call.
    listeners : list of TapListener
        Attached so far; each sees what the ones before it changed.
    again : bool
        Whether the sampler is run again from its start at each edit.
    """

    shape: tuple[int, ...]
    table: StepTable
    plan: Rehearsal
    inpaints: bool
    listeners: list[TapListener] = field(default_factory=list)
    again: bool = False

    @property
    def seed(self) -> int:
        """The sampler's seed."""
        return int(self.extra.get("seed") or 0)

    @property
    def whole(self) -> bool:
        """Whether it ends without noise."""
        return float(self.sigmas[-1]) == 0

    def level(self, sigma: float) -> tuple[float, float]:
        """``alpha`` and ``sigma`` of ComfyUI's sigma."""
        return noise_level(_model_sampling(self.guider), sigma)

    def check_edits(self, steps: Sequence[int]) -> None:
        """Refuse, before anything is sampled, edits that would not last.

        Parameters
        ----------
        steps : sequence of int
            Steps whose entering sample is to be edited.

        Raises
        ------
        InputError
            Naming the sampler.
        """
        if self.inpaints:
            raise InputError(
                "an inpainting mask is put over the sample at every step, so that no edit would "
                "last: sample without the latent's noise mask, or leave the correction out"
            )
        found = lasting(self, self.plan, steps, self.level)
        lost = [step for step, lasts in found.items() if not lasts]
        if lost and not straight(self, self.plan, self.level):
            raise InputError(
                f"the sampler {self.name} mixes in what the model said before step {lost[0]}, and "
                "leaves the straight path to what it says, so that no edit of its sample would "
                "last: choose another, such as euler, dpmpp_2m or euler_ancestral"
            )
        self.again |= bool(lost)

    def ask(self, sample: Tensor, table: Any, step: int) -> Tensor:
        """Predicted x0 of a sample at a step's level, guidance included (`Corrector`'s network)."""
        given = _restore(sample).to(self.sigmas.device)
        told = given.new_full((len(given),), float(table.timestep[step]))
        denoised = self.guider.predict_noise(
            given, told, self.extra.get("model_options", {}), self.extra.get("seed")
        )
        return _arrange(denoised).to(sample)


Attach = Callable[[Sampling], AbstractContextManager[TapListener]]
"""Gives a listener for one call of a sampler, and is left when it is over."""


def listen(model: Any, attach: Attach) -> Any:
    """A copy of a MODEL, whose sampling is told to a listener.

    Parameters
    ----------
    model : ModelPatcher
        Of ComfyUI.
    attach : callable
        A plain function (ComfyUI copies what else it holds). Several are asked in the order in
        which they came; each sees what the ones before it changed.
    """
    if not hasattr(model, "add_wrapper_with_key"):
        raise InputError(f"{type(model).__name__} takes no wrappers: {NEWER}")
    copy = model.clone()
    options = copy.model_options["transformer_options"]
    if not options.get(LISTENERS):
        copy.add_wrapper_with_key("sampler_sample", KEY, _sample)
        copy.add_wrapper_with_key("predict_noise", KEY, _predict)
    options[LISTENERS] = (*options.get(LISTENERS, ()), attach)
    return copy


def _sample(
    executor: Any,
    guider: Any,
    sigmas: Tensor,
    extra: dict[str, Any],
    callback: Any,
    noise: Tensor,
    latent_image: Any = None,
    denoise_mask: Any = None,
    disable_pbar: bool = False,
) -> Any:
    """Around a sampler: make the listeners, sample, and show them the end."""
    options = extra["model_options"]["transformer_options"]
    call = SamplerCall(executor.class_obj, guider, sigmas, extra)
    sampling = _sampling(call, noise, inpaints=denoise_mask is not None)
    with ExitStack() as stack:
        for attach in options[LISTENERS]:
            sampling.listeners.append(stack.enter_context(attach(sampling)))
        run = options[RUN] = _Run(sampling, ListenerChain(*sampling.listeners))

        def told(*facts: Any) -> Any:
            return callback(*facts) if callback and run.calls >= run.known else None

        while True:
            try:  # copies, since some samplers write into what they are given
                end = executor(
                    guider, sigmas.clone(), dict(extra), told, noise, latent_image, denoise_mask,
                    disable_pbar,
                )  # fmt: skip
                return run.leave(end)
            except _Again as again:
                noise = noise + again.shift


def _predict(
    executor: Any, x: Tensor, timestep: Tensor, model_options: Any = None, seed: Any = None
) -> Tensor:
    """Around a prediction."""
    options = model_options or {}
    run: _Run | None = options.get("transformer_options", {}).get(RUN)
    if run is None:
        denoised: Tensor = executor(x, timestep, options, seed)
        return denoised
    return run.predict(executor, x, timestep, options, seed)


class _Again(Exception):  # noqa: N818 (no error)
    """The sampler is to begin again, from noise that is shifted."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__("a sampler is run again after an edit")
        self.shift = shift


class _Run:
    """The steps of one call of a sampler."""

    def __init__(self, sampling: Sampling, listener: TapListener) -> None:
        self.sampling, self.listener = sampling, listener
        self.calls = self.known = 0  # calls of this pass; and those that it repeats
        self.outputs: list[Tensor] = []  # of every call, where a sampler may be run again
        self.start: Tensor | None = None
        self.event: StepEvent | None = None
        self.said: list[weakref.ref[Tensor]] = []  # what a sampler may still remember
        listener.begin(sampling.table)

    def predict(
        self, executor: Any, x: Tensor, timestep: Tensor, options: Any, seed: Any
    ) -> Tensor:
        """Show what enters a step, ask the model, and show what it says."""
        plan = self.sampling.plan
        call, self.calls = self.calls, self.calls + 1
        told = float(timestep.reshape(-1)[0])
        if call >= len(plan.levels) or abs(told - plan.levels[call]) > 1e-4 * told:
            raise InputError(
                f"the sampler {self.sampling.name} chooses its steps as it goes (call {call} is at "
                f"sigma {told:.5g}), so that it has no schedule: it is not recorded or corrected. "
                "Choose a sampler of fixed steps, such as dpmpp_2m"
            )
        if call < self.known:
            return self.outputs[call].clone()
        if self.start is None:
            self.start = x.clone()
        step = plan.steps.get(call)
        if step is None:
            denoised: Tensor = executor(x, timestep, options, seed)
            self._keep(denoised)
            return denoised
        entering = self._enter(x)
        edited = None if entering is None else entering != x
        if entering is not None:
            x.copy_(entering)
        denoised = executor(x, timestep, options, seed)
        if edited is not None and not self.sampling.again:
            self._renew(x, edited, denoised)
        event = StepEvent(
            self.sampling.table,
            step,
            _arrange(x).clone(),
            _arrange(denoised).clone(),
            None,
            plan.first_order[step],
        )
        changed = self.listener.before_step(event)
        if changed is not None:
            event = event.replaced(changed)
            denoised = _restore(changed).to(denoised)
        self.event = event
        self.said = [one for one in self.said if one() is not None] + [weakref.ref(denoised)]
        if edited is not None and self.sampling.again:
            shift = self._past(x, edited, denoised, step)
            self._keep(denoised)
            self.calls, self.known = 0, len(self.outputs)
            raise _Again(shift)
        self._keep(denoised)
        return denoised

    def leave(self, end: Tensor) -> Tensor:
        """Show the end, which may be changed too."""
        taken = 0 if self.event is None else self.event.step + 1
        if self.event is None or taken < self.sampling.table.steps:
            raise InputError(
                f"{taken} of {self.sampling.table.steps} steps of {self.sampling.name} were seen: "
                f"{type(self.sampling.guider).__name__} calls the model in a way of its own, or "
                "the sampler ended early; it is not recorded or corrected"
            )
        if not self.sampling.whole:
            return end
        changed = self.listener.after_step(self.event, _arrange(end))
        return end if changed is None else _restore(changed).to(end)

    def _enter(self, x: Tensor) -> Tensor | None:
        """Show the sample that enters a step, and give what it is changed to."""
        if self.event is None:
            return None
        changed = self.listener.after_step(self.event, _arrange(x))
        return None if changed is None else _restore(changed).to(x)

    def _keep(self, denoised: Tensor) -> None:
        """Keep what the model said, where the sampler may be run again."""
        if self.sampling.again:
            self.outputs.append(denoised.clone())

    def _past(self, x: Tensor, edited: Tensor, denoised: Tensor, step: int) -> Tensor:
        """Give edited places a past on the straight path, and say how its noise differs."""
        table = self.sampling.table
        eps = (x - float(table.alpha[step]) * denoised) / float(table.sigma[step])
        start = float(table.alpha[0]) * denoised + float(table.sigma[0]) * eps
        assert self.start is not None
        for past in self.outputs:
            past.copy_(denoised.where(edited, past))
        shift = (start - self.start) * edited
        self.start += shift
        return shift / self.sampling.plan.gain

    def _renew(self, x: Tensor, edited: Tensor, denoised: Tensor) -> None:
        """Let the sampler remember, in edited places, what the model says of the edited sample."""
        for known in self.said:
            past = known()
            # Some samplers make the next sample in the place of what the model said.
            if past is not None and past.data_ptr() != x.data_ptr():
                past.copy_(denoised.where(edited, past))


def _sampling(call: SamplerCall, noise: Tensor, *, inpaints: bool) -> Sampling:
    """What is known before the sampler begins."""
    if noise.ndim not in (4, 5):
        raise InputError(
            f"the latent has shape {tuple(noise.shape)}: images (run, channel, y, x) and video "
            "(run, channel, frame, y, x) are recorded and corrected"
        )
    if not hasattr(call.guider, "outer_predict_noise"):
        raise InputError(f"{type(call.guider).__name__} calls no wrappers: {NEWER}")
    plan = rehearse(call)
    levels = [noise_level(_model_sampling(call.guider), sigma) for sigma in plan.schedule]
    alpha, sigma = np.array(levels).T
    falling = np.asarray(log_snr(alpha, sigma))
    if not (sigma > 0).all() or not (np.diff(falling) > 0).all():
        raise InputError(
            f"the sampler {call.name} walks back to noisier levels, or takes a step from "
            "none: its runs are no trajectories, and are not recorded or corrected"
        )
    steps = len(levels)
    table = StepTable(
        timestep=np.array(plan.schedule, np.float64),
        alpha=alpha,
        sigma=sigma,
        log_snr=falling,
        prediction_type="sample",
        sigma_data=0.5,
        calls=np.arange(steps),
        editable=np.ones(steps, np.bool_),
        resumable=False,
        scheduler_class=f"ComfyUI {call.name}",
    )
    shape = tuple(_arrange(noise).shape)
    return Sampling(**vars(call), shape=shape, table=table, plan=plan, inpaints=inpaints)


def _model_sampling(guider: Any) -> Any:
    return guider.model_patcher.get_model_object("model_sampling")


def _arrange(x: Tensor) -> Tensor:
    """Frames before channels, as runs are recorded."""
    return x.transpose(1, 2) if x.ndim == 5 else x


_restore = _arrange  # the same exchange brings it back
