"""What chosen modules of a network compute on the way, pooled to some hundred numbers a step."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from asced_recorders.pipelines.networks import denoisers, hook, rows_of
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_CHANNELS = 128
"""A module with more gives the means of as many groups of neighbouring channels."""

MOST_VALUES = 1 << 24
"""So many are copied to float32 at once: an activation of half precision is not, as a whole."""


class ActivationWatch:
    """Pools the outputs of modules between one step and the next.

    Of each channel the mean and the standard deviation over its places are kept (of a module that
    gives one vector a row, its values). Where the network is asked several times for one step,
    doubled batches of classifier-free guidance included, the mean over these. Further evaluations
    of a second-order step, and those of a lookahead, are not the step's, and left out.

    Parameters
    ----------
    pipe : DiffusionPipeline, ModularPipeline or torch.nn.Module
    names : sequence of str
        Of modules of the networks that sample, for example ``mid_block`` or ``unet.up_blocks.0``.

    Raises
    ------
    InputError
        Where no network has such a module.
    """

    def __init__(self, pipe: Any, names: Sequence[str]) -> None:
        self.names = tuple(dict.fromkeys(names))
        self.networks = [part for _, part in denoisers(pipe)]
        self.modules = {name: modules_of(pipe, name) for name in self.names}
        self.widths: dict[str, int] = {}
        self._found: dict[str, list[tuple[str, Tensor]]] = {}
        self._rows = 0
        self._paused = False
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        self.forget()
        for network in self.networks if self.names else ():
            enter = network.register_forward_pre_hook
            self._handles.append(hook(enter, self._begin, with_kwargs=True))
            self._handles.append(hook(network.register_forward_hook, self._end))
        for name, modules in self.modules.items():
            for component, module in modules:
                see = partial(self._see, name, component)
                self._handles.append(hook(module.register_forward_hook, see))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def forget(self) -> None:
        """Let go what was seen of a call that is over, or failed."""
        self._found = {name: [] for name in self.names}
        self._rows = 0
        self._paused = False

    def pause(self, inside: bool) -> None:
        """Be blind inside a call of the scheduler; what is seen after it is the next call's."""
        self._paused = inside
        if not inside:
            self._found = {name: [] for name in self.names}

    def since(self, runs: int) -> Tensor | None:
        """End a step: what the modules gave since the last one.

        Parameters
        ----------
        runs : int
            Of the batch.

        Returns
        -------
        Tensor, shape (run, value), float32
            NaN where a module did not run, for example since a cache answered. None where no
            module is watched.

        Raises
        ------
        InputError
            Where a module did not run before the first step, its rows are no whole number a run, or
            several networks have one of this name.
        """
        import torch

        if not self.names:
            return None
        parts: list[Tensor] = []
        for name in self.names:
            seen, self._found[name] = self._found[name], []
            found = [values for _, values in seen]
            if len(among := sorted({component for component, _ in seen})) > 1:
                raise InputError(
                    f"{' and '.join(among)} each have a module {name}, and both ran: name one of "
                    f"them, for example {among[-1]}.{name}"
                )
            if not found and name not in self.widths:
                raise InputError(
                    f"the module {name} did not run before the first step: a compiled network "
                    "does not show its modules, and some run only for some arguments. Name a "
                    "module that runs at each step, or record before torch.compile"
                )
            by_run = [one.reshape(-1, runs, one.shape[-1]) for one in found if _fits(one, runs)]
            if len(by_run) < len(found):
                raise InputError(
                    f"the network answers {len(found[0])} rows for {runs} runs: which activations "
                    "belong to which run is not known. Record without activations"
                )
            if found:
                parts.append(torch.cat(by_run).mean(dim=0))
                self.widths[name] = parts[-1].shape[-1]
            else:
                parts.append(torch.full((runs, self.widths[name]), torch.nan))
        device = next((one.device for one in parts if one.device.type != "cpu"), None)
        return torch.cat([one.to(device) for one in parts] if device else parts, dim=1)

    def asked(self) -> dict[str, Any]:
        """What is known of `facts` before the first step."""
        return {"activations": [{"module": name} for name in self.names]} if self.names else {}

    def facts(self) -> dict[str, Any]:
        """Which numbers come from which module, in order, as attributes of a store."""
        if not self.names:
            return {}
        return {"activations": [{"module": n, "values": self.widths[n]} for n in self.names]}

    @property
    def values(self) -> int:
        """Numbers a run and step."""
        return sum(self.widths.values())

    def _begin(self, module: Any, args: Any, kwargs: Any) -> None:
        self._rows = 0 if self._paused else max(1, rows_of(args, kwargs))

    def _end(self, *_: Any) -> None:
        self._rows = 0

    def _see(self, name: str, component: str, module: Any, args: Any, output: Any) -> None:
        """Pool one output; frames that lie among the rows are one row again."""
        if not self._rows:  # somebody else calls the module
            return
        values = pooled(first_tensor(output, name))
        if len(values) > self._rows and len(values) % self._rows == 0:
            values = values.reshape(self._rows, -1, values.shape[-1]).mean(dim=1)
        self._found[name].append((component, values))


def modules_of(pipe: Any, name: str) -> list[tuple[str, nn.Module]]:
    """The modules of a name: one in each network that has it (experts have the same ones).

    With each comes what the pipeline calls its network, which may stand before the name.

    Raises
    ------
    InputError
        Where none has it, with names that are near.
    """
    found: list[tuple[str, nn.Module]] = []
    known: list[str] = []
    for component, network in denoisers(pipe):
        parts = dict(network.named_modules())
        path = name if name in parts else name.removeprefix(f"{component}.")
        if path and path in parts and not any(parts[path] is one for _, one in found):
            found.append((component, parts[path]))
        known += [part for part in parts if part]
    if found:
        return found
    near = difflib.get_close_matches(name, known, n=3) or [
        part for part in known if "." not in part
    ]
    raise InputError(
        f"no network of this pipeline has a module {name!r}: name one of its modules, for example "
        f"{', '.join(near[:6])}"
    )


def first_tensor(output: Any, name: str) -> Tensor:
    """The tensor of a module's output: itself, or the first of several."""
    if hasattr(output, "detach"):
        return output  # type: ignore[no-any-return]
    parts = list(output.values()) if hasattr(output, "values") else output
    for one in parts if isinstance(parts, (list, tuple)) else ():
        if hasattr(one, "detach"):
            return one  # type: ignore[no-any-return]
    raise InputError(f"the module {name} gives no tensor: name another one")


def pooled(values: Tensor) -> Tensor:
    """Mean and standard deviation over places of each channel.

    Parameters
    ----------
    values : Tensor, shape (row, channel), (row, token, channel) or (row, channel, [frame,] y, x)

    Returns
    -------
    Tensor, shape (row, value), float32
        At most ``2 * MOST_CHANNELS`` values.
    """
    import torch

    values = values.detach()
    if values.ndim < 2:
        values = values.reshape(len(values) if values.ndim else 1, -1)
    if values.ndim == 2:
        parts = [values.float()]
    else:
        channel = 2 if values.ndim == 3 else 1
        places = [axis for axis in range(1, values.ndim) if axis != channel]
        at_once = max(1, MOST_VALUES * values.shape[channel] // max(1, values.numel()))
        found = [
            torch.std_mean(some.float(), dim=places, correction=0)
            for some in torch.split(values, at_once, dim=channel)
        ]
        parts = [torch.cat([each[which] for each in found], dim=1) for which in (1, 0)]
    if parts[0].shape[1] > MOST_CHANNELS:
        parts = [torch.nn.functional.adaptive_avg_pool1d(one, MOST_CHANNELS) for one in parts]
    return torch.cat(parts, dim=1)


def _fits(values: Tensor, runs: int) -> bool:
    return len(values) % runs == 0
