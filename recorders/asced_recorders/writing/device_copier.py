"""Copies from an accelerator to the host that the model does not wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

STREAMED = ("cuda", "xpu")  # devices whose streams copy to pinned memory; ROCm calls itself cuda


class Streams:
    """Streams and events of whatever accelerator torch has: CUDA, ROCm, XPU.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        self.device = device
        self.side: Any = torch.Stream(device)

    def current(self) -> Any:
        """The stream that the model computes on."""
        import torch

        return torch.accelerator.current_stream(self.device)

    def event(self) -> Any:
        """A new event."""
        import torch

        return torch.Event(self.device)

    def copy(self, stream: Any, source: Tensor, target: Tensor) -> None:
        """Have a stream copy a tensor, without waiting for it."""
        with stream:
            target.copy_(source, non_blocking=True)


class DeviceCopier:
    """Copies tensors off a device without making the model wait.

    Parameters
    ----------
    streams : Streams
    slots : int
        Steps that may be under way at once.
    """

    def __init__(self, streams: Streams, slots: int) -> None:
        self.streams = streams
        self.slots: list[Tensor | None] = [None] * slots
        self.left: list[Any] = [None] * slots
        self.turn = 0

    def copy(self, value: Tensor, target: Tensor) -> None:
        """Cast into the next slot, then copy the slot on the side stream."""
        import torch

        turn = self.turn
        self.turn = (turn + 1) % len(self.slots)
        compute, side = self.streams.current(), self.streams.side
        if self.left[turn] is not None:
            compute.wait_event(self.left[turn])  # the slot's former content
        slot = self.slots[turn]
        if slot is None or slot.shape != target.shape or slot.dtype != target.dtype:
            slot = torch.empty(target.shape, dtype=target.dtype, device=value.device)
            self.slots[turn] = slot
        self.streams.copy(compute, value.detach(), slot)
        ready, self.left[turn] = self.streams.event(), self.streams.event()
        compute.record_event(ready)
        side.wait_event(ready)
        self.streams.copy(side, slot, target)
        side.record_event(self.left[turn])

    def wait(self) -> None:
        """Wait until everything has arrived (called in the writer's thread)."""
        self.streams.side.synchronize()
