"""Whether a call draws noise that no seed of its runs tells."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.devices import default_device

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


class NoiseWatch:
    """Notices draws from torch's own generators by a call that was given generators.

    Some pipelines do not hand their generator to the scheduler: where that draws noise (stochastic
    flow schedulers in Flux), the runs depend on more than their seeds.

    Parameters
    ----------
    generator : torch.Generator, sequence of them, or None
        What the call is given; without one, its seeds are unknown anyway.
    """

    def __init__(self, generator: Any) -> None:
        self._before = None if generator is None else _own_states()

    def facts(self) -> dict[str, Any]:
        """What a store says of it, once the call is over; nothing where seeds tell everything."""
        import torch

        if self._before is None or all(map(torch.equal, self._before, _own_states())):
            return {}
        logger.warning(
            "this call drew noise from torch's own generator beside those that it was given: the "
            "seeds do not tell these runs, and a replay does not bring them back; take a scheduler "
            "without noise, or a pipeline that hands its generator to the scheduler"
        )
        return {"unseeded_noise": True}


def _own_states() -> list[Tensor]:
    """States of the generators that torch draws from where it is given none."""
    import torch

    device = default_device()
    states = [torch.get_rng_state()]
    if device != "cpu":
        module = torch.get_device_module(device)
        every = getattr(module, "get_rng_state_all", None)  # a pipeline may lie on several
        states += [module.get_rng_state()] if every is None else every()
    return states
