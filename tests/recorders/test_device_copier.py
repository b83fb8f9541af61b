"""The ring of slots, on a device whose two streams do their work in any order that events allow."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from asced_recorders.writing.device_copier import DeviceCopier, Streams


class FakeEvent:
    def __init__(self) -> None:
        self.recorded = self.done = False


class FakeStream:
    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.work: list[tuple[str, Any]] = []

    def wait_event(self, event: FakeEvent) -> None:
        if event.recorded:
            self.work.append(("wait", event))

    def record_event(self, event: FakeEvent) -> None:
        event.recorded = True
        self.work.append(("record", event))

    def synchronize(self) -> None:
        while self.work:
            self.device.advance()

    def step(self) -> bool:
        """Do one piece of work, if events allow."""
        if not self.work or (self.work[0][0] == "wait" and not self.work[0][1].done):
            return False
        kind, what = self.work.pop(0)
        if kind == "record":
            what.done = True
        elif kind == "copy":
            what[1].copy_(what[0])
        return True


class FakeDevice(Streams):
    """Streams that only queue; which of them goes on is drawn."""

    def __init__(self, seed: int, eager: float) -> None:
        self.draw = random.Random(seed)
        self.eager = eager
        self.side, self.compute = FakeStream(self), FakeStream(self)

    def current(self) -> Any:
        return self.compute

    def event(self) -> Any:
        return FakeEvent()

    def copy(self, stream: Any, source: torch.Tensor, target: torch.Tensor) -> None:
        stream.work.append(("copy", (source, target)))
        if self.draw.random() < self.eager:
            self.advance()

    def advance(self) -> None:
        streams = [self.side, self.compute]
        self.draw.shuffle(streams)
        assert any(stream.step() for stream in streams) or not any(s.work for s in streams)


def copied(device: FakeDevice, slots: int, steps: int = 40) -> bool:
    copier = DeviceCopier(device, slots)
    values = torch.arange(steps, dtype=torch.float32)[:, None].expand(steps, 3).contiguous()
    targets = torch.full((steps, 3), -1, dtype=torch.float16)
    for value, target in zip(values, targets, strict=True):
        copier.copy(value, target)
    copier.wait()
    return torch.equal(targets.float(), values)


@pytest.mark.parametrize("eager", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_every_step_arrives_whatever_the_order(slots: int, eager: float) -> None:
    assert all(copied(FakeDevice(seed, eager), slots) for seed in range(30))


def test_the_fake_device_finds_a_missing_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeStream, "wait_event", lambda *_: None)
    assert not all(copied(FakeDevice(seed, 0.3), 2) for seed in range(30))
