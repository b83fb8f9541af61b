"""A sampler of ComfyUI is rehearsed on a few thousand numbers before it samples.

Samplers of ComfyUI are functions that call the model as they like. Which of these calls begin a
step, at what level, and whether a sample that is replaced there stays replaced, is not written
anywhere. So the sampler is run first with a model that knows the answer, the same everywhere: its
calls are counted, some of the samples it holds are replaced by fresh noise, and the noise that the
later calls find must be that noise, at its level, with nothing left of the old. Where that fails, a
sampler that keeps to the straight path between its noise and the answer can be led through an edit
by running it again from another start (`straight`). Nothing depends on the sampler's name, so that
those of other node packs are treated alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from asced_stores.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SIDE = 128  # of a sample: 16,384 numbers, so that a correlation by chance is below 0.04
LASTING = 0.05  # of the noise's size, and of the correlation with the old noise
STRAIGHT = 0.02  # of the noise's size; DEIS integrates its coefficients to 0.012 on flow's levels


@dataclass
class SamplerCall:
    """One call of a sampler, as ComfyUI makes it.

    Attributes
    ----------
    sampler : object
        Of ComfyUI.
    guider : object
        Holds model, prompts and guidance.
    sigmas : Tensor, shape (steps + 1,)
        As ComfyUI has them.
    extra : dict
        What the sampler hands to the model: its options, and the seed.
    """

    sampler: Any
    guider: Any
    sigmas: Tensor
    extra: dict[str, Any]

    @property
    def name(self) -> str:
        """The sampler's name, as people choose it."""
        function = getattr(self.sampler, "sampler_function", None)
        name = getattr(function, "__name__", type(self.sampler).__name__)
        return str(name).removeprefix("sample_").removesuffix("_function")


@dataclass(frozen=True)
class Rehearsal:
    """What a sampler did.

    Attributes
    ----------
    levels : tuple of float
        What each call of the model was told, in ComfyUI's sigma.
    steps : dict of int to int
        Step that each call begins; calls within a step are left out.
    gain : float
        By what the noise that a sampler is given is multiplied in the first call's sample.
    """

    levels: tuple[float, ...]
    steps: dict[int, int]
    gain: float

    @property
    def schedule(self) -> list[float]:
        """Level of each step."""
        return [self.levels[call] for call in self.steps]

    @property
    def first_order(self) -> list[bool]:
        """Whether each step is made of one evaluation."""
        calls = [*self.steps, len(self.levels)]
        return [after - call == 1 for call, after in pairwise(calls)]


class ConstantGuider:
    """Stands where ComfyUI's guider stands, and predicts one value everywhere.

    Parameters
    ----------
    guider : object
        The real one, of which all else is taken.
    own : sequence of callable
        Functions after guidance that were there before the sampler came.
    seen : callable
        ``seen(call, x, level)`` is told each call.
    answer : float
    """

    def __init__(
        self,
        guider: Any,
        own: Sequence[Callable[..., Any]],
        seen: Callable[[int, Tensor, float], None],
        answer: float,
    ) -> None:
        self._guider, self._own, self._seen, self._answer = guider, list(own), seen, answer
        self._calls = 0
        self.learns = False  # whether a function of the sampler's own was there

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guider, name)

    def __call__(
        self, x: Tensor, timestep: Tensor, model_options: Any = None, seed: Any = None
    ) -> Tensor:
        """Predict the answer."""
        options = model_options or {}
        self._seen(self._calls, x, float(timestep.reshape(-1)[0]))
        self._calls += 1
        denoised = x * 0 + self._answer
        for function in options.get("sampler_post_cfg_function", []):
            if function not in self._own:  # the sampler's own, by which it learns of guidance
                self.learns = True
                denoised = function(
                    {
                        "denoised": denoised,
                        "cond_denoised": denoised,
                        "uncond_denoised": denoised,
                        "input": x,
                        "sigma": timestep,
                        "model_options": options,
                        "model": self._guider.inner_model,
                        "cond": None,
                        "uncond": None,
                        "cond_scale": 1.0,
                    }
                )
        return denoised


def rehearse(sampling: SamplerCall) -> Rehearsal:
    """Learn which calls of the model begin a step.

    Parameters
    ----------
    sampling : SamplerCall
        The call that is to come; it is made once with a small sample and no model.

    Returns
    -------
    Rehearsal

    Raises
    ------
    InputError
        If the sampler fails, or says of no step that it was taken.
    """
    import torch

    levels: list[float] = []
    marks: list[int] = []
    gain = 0.0
    noise = torch.randn((1, 1, 8, 8), generator=_seeded(0))

    def seen(call: int, x: Tensor, level: float) -> None:
        nonlocal gain
        if x.shape != noise.shape:
            raise InputError(
                f"the sampler {sampling.name} changes the sample's size on its way: its runs "
                "are not recorded or corrected"
            )
        if call == 0:
            gain = float((x * noise).sum() / noise.square().sum())
        levels.append(level)

    def taken(*facts: Any) -> None:
        if len(levels) - 1 not in marks:
            marks.append(len(levels) - 1)

    _run(sampling, noise, seen, taken)
    if not marks or marks[0] < 0:
        raise InputError(
            f"the sampler {sampling.name} does not say when it has taken a step (its callback), "
            "so that its steps are not known: it is not recorded or corrected"
        )
    begins = []
    for mark, following in zip(marks, [*marks[1:], len(levels)], strict=True):
        same = [call for call in range(mark, following) if levels[call] == levels[mark]]
        begins.append(same[-1])  # a corrector that asks again at a level samples on from there
    return Rehearsal(tuple(levels), {call: step for step, call in enumerate(begins)}, gain)


def lasting(
    sampling: SamplerCall,
    plan: Rehearsal,
    steps: Sequence[int],
    level: Callable[[float], tuple[float, float]],
) -> dict[int, bool]:
    """Whether a sample that is replaced as it enters a step stays replaced, by step.

    Parameters
    ----------
    sampling : SamplerCall
    plan : Rehearsal
    steps : sequence of int
        Which to try.
    level : callable
        ``level(s)`` gives alpha and sigma of ComfyUI's ``s``.
    """
    import torch

    calls = {call: step for call, step in plan.steps.items() if step in steps}
    place = {call: 1 + index for index, call in enumerate(calls)}  # sample 0 is left alone
    found = dict.fromkeys(calls.values(), True)
    start: Any = None
    shape = (len(place) + 1, 1, SIDE, SIDE)
    noise, fresh = (torch.randn(shape, generator=_seeded(seed)) for seed in (0, 1))

    def seen(call: int, x: Tensor, told: float) -> None:
        nonlocal start
        size = level(told)[1]
        if start is None:
            start = (x / size).clone()
        if call in place:
            x[place[call]] = size * fresh[place[call]].to(x)
        if call not in plan.steps:
            return
        eps = x / size
        usual = _size(eps[0])
        for begun, step in calls.items():
            if call > begun:
                at = place[begun]
                now = _size(eps[at])
                old = float((eps[at] * start[at]).mean()) / (now * _size(start[at]))
                found[step] &= abs(now / usual - 1) <= LASTING and abs(old) <= LASTING

    _run(sampling, noise, seen, lambda *facts: None)
    return found


def straight(
    sampling: SamplerCall, plan: Rehearsal, level: Callable[[float], tuple[float, float]]
) -> bool:
    """Whether a sampler keeps to ``alpha * x0 + sigma * eps`` where the model always says x0.

    Then a past can be made for a sample that is edited: the same sampler, run again from the start
    of the straight path through it, arrives there by itself, with a history that fits, whatever it
    remembers. Samplers that draw noise on their way don't, nor those that learn of guidance, nor
    those whose coefficients don't add up (IPNDM with variable steps).

    Parameters
    ----------
    sampling, plan, level
        As in `lasting`.
    """
    import torch

    noise = torch.randn((1, 1, 8, 8), generator=_seeded(0))
    fits = 0 in plan.steps

    def seen(call: int, x: Tensor, told: float) -> None:
        nonlocal fits
        alpha, sigma = level(told)
        eps = plan.gain / level(plan.levels[0])[1] * noise
        fits = fits and _size((x - alpha) / sigma - eps) <= STRAIGHT

    model = _run(sampling, noise, seen, lambda *facts: None, answer=1.0)
    return fits and not model.learns


def _seeded(seed: int) -> torch.Generator:
    """A generator of one's own."""
    import torch

    return torch.Generator().manual_seed(seed)


def _size(eps: Tensor) -> float:
    """Root mean square."""
    return float(eps.square().mean().sqrt())


def _run(
    sampling: SamplerCall,
    noise: Tensor,
    seen: Callable[[int, Tensor, float], None],
    taken: Callable[..., None],
    answer: float = 0.0,
) -> ConstantGuider:
    """Sample where the answer is known, on the host, without touching torch's generators."""
    import torch

    own = sampling.extra.get("model_options", {}).get("sampler_post_cfg_function", [])
    model = ConstantGuider(sampling.guider, own, seen, answer)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            sampling.sampler.sample(
                model,
                sampling.sigmas.detach().cpu().clone(),
                dict(sampling.extra),
                taken,
                noise,
                torch.full_like(noise, answer),
                None,
                True,
            )
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the sampler {sampling.name} failed on a model that predicts {answer:g} ({error}), "
            "so that its steps are not known: it is not recorded or corrected"
        ) from error
    return model
