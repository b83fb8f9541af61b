"""The writer in the background: bounded, lossless, and loud when it fails."""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asced_recorders import record
from asced_recorders.custom.loop import CustomRecorder
from asced_recorders.recording.interruption import FinishBatch
from asced_recorders.writing.capture import RunBuffer
from asced_recorders.writing.ring import BackgroundWriter, _Job
from asced_recorders.writing.session import Session
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError, StoreExistsError
from asced_stores.writing.writer import BatchWriter

KEY = ((0, 1), 0, 3, (1, 2, 2), "float16", ("eps", "sample"), "cpu")


def filled(writer: BackgroundWriter, value: float) -> RunBuffer:
    buffer = writer.take(lambda: RunBuffer(KEY), KEY)
    for step in range(2):
        buffer.put("eps", torch.full((3, 1, 2, 2), value + step), step)
    buffer.put("sample", torch.full((3, 1, 2, 2), value))
    return buffer


def test_batches_come_in_order_and_none_is_lost() -> None:
    seen: list[tuple[int, float]] = []

    def write(batch: int, arrays: dict[str, Any], runs: Any, scalars: Any) -> None:
        time.sleep(0.01)
        assert arrays["eps"].shape == (3, 2, 1, 2, 2)
        assert arrays["eps"].dtype == np.float16
        seen.append((batch, float(arrays["eps"][0, 1, 0, 0, 0])))

    with BackgroundWriter(write) as writer:
        for batch in range(12):
            writer.submit(batch, filled(writer, float(batch)), range(3), {})
    assert seen == [(batch, batch + 1.0) for batch in range(12)]


def test_an_interrupt_between_queueing_and_telling_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The batch is written although nobody woke the thread that waits for one."""
    waiting, seen = threading.Event(), []
    with BackgroundWriter(lambda batch, *_: seen.append(batch)) as writer:
        wait = writer._state.wait

        def tell(timeout: float | None = None) -> bool:
            waiting.set()
            return wait(timeout)

        monkeypatch.setattr(writer._state, "wait", tell)
        buffer = filled(writer, 0.0)
        writer._start()
        assert waiting.wait(10)
        with writer._state:  # as `_put`, up to the interrupt
            writer._jobs.append(_Job(0, buffer, range(3), {}, {}))
        drained = threading.Thread(target=writer.drain, daemon=True)
        drained.start()
        drained.join(10)
        assert not drained.is_alive()
    assert seen == [0]


def test_sampling_waits_for_a_slow_disk_and_memory_is_bounded() -> None:
    gate = threading.Event()
    made: list[RunBuffer] = []

    def make() -> RunBuffer:
        made.append(RunBuffer(KEY))
        return made[-1]

    with BackgroundWriter(lambda *_: gate.wait(), depth=2) as writer:
        for batch in range(2):
            writer.submit(batch, writer.take(make, KEY), range(3), {})
        took = threading.Event()

        def sampler() -> None:
            writer.give_back(writer.take(make, KEY))
            took.set()

        thread = threading.Thread(target=sampler)
        thread.start()
        assert not took.wait(0.2)  # both buffers wait for the disk
        gate.set()
        assert took.wait(5)
        thread.join()
    assert len(made) == 2


def test_a_queued_buffer_is_not_handed_out_again_before_it_is_written() -> None:
    """An interrupt right after `submit` makes callers give back what the writer still reads."""
    gate, seen = threading.Event(), []

    def write(batch: int, arrays: dict[str, Any], runs: Any, scalars: Any) -> None:
        assert gate.wait(30)
        seen.append(float(arrays["eps"][0, 0, 0, 0, 0]))

    with BackgroundWriter(write, depth=2) as writer:
        queued = filled(writer, 1.0)
        writer.submit(0, queued, range(3), {})
        writer.give_back(queued)
        other = filled(writer, 7.0)
        assert other is not queued
        gate.set()
        writer.submit(1, other, range(3), {})
        writer.drain()
        assert writer.take(lambda: RunBuffer(KEY), KEY) in (queued, other)
    assert seen == [1.0, 7.0]


def test_buffers_that_are_lost_or_cannot_be_made_do_not_stop_the_next_batch() -> None:
    def refused() -> RunBuffer:
        raise MemoryError

    seen: list[int] = []
    with BackgroundWriter(lambda batch, *_: seen.append(batch), depth=2) as writer:
        for _ in range(3):  # more often than there may be buffers
            with pytest.raises(MemoryError):
                writer.take(refused, KEY)
            filled(writer, 0.0)  # an interrupt came before anybody held it
        buffer = filled(writer, 1.0)
        for _ in range(2):
            writer.give_back(buffer)  # by an error's handler, and by that of its caller
        assert writer.take(lambda: RunBuffer(KEY), KEY) is buffer
        other = filled(writer, 2.0)
        assert other is not buffer
        for batch, one in enumerate((buffer, other)):
            writer.submit(batch, one, range(3), {})
    assert seen == [0, 1]


def test_an_error_of_the_disk_is_raised_to_the_sampler() -> None:
    def write(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    writer = BackgroundWriter(write)
    writer.submit(0, filled(writer, 0.0), range(3), {})
    with pytest.raises(OSError, match="No space left") as caught:
        writer.drain()
    assert "--resume" in caught.value.__notes__[0]
    with pytest.raises(OSError, match="No space left"):
        writer.check()
    with pytest.raises(OSError, match="No space left"):
        writer.take(lambda: RunBuffer(KEY), KEY)
    writer.close(quietly=True)


def test_sampling_stops_at_its_next_step_when_the_disk_fails(
    tiny_pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asced_stores.writing.writer import BatchWriter

    real, steps = BatchWriter.write_batch, []

    def fail(self: BatchWriter, batch: int, *rest: Any) -> Any:
        if batch == 1:
            raise OSError(28, "No space left on device")
        return real(self, batch, *rest)

    monkeypatch.setattr(BatchWriter, "write_batch", fail)
    forward = type(tiny_pipeline.unet).forward

    def count(self: Any, *rest: Any, **named: Any) -> Any:
        steps.append(1)
        time.sleep(0.02)  # the disk fails while a batch is being sampled
        return forward(self, *rest, **named)

    monkeypatch.setattr(type(tiny_pipeline.unet), "forward", count)
    path = tmp_path / "runs.zarr"
    with pytest.raises(OSError, match="No space left"):
        record(tiny_pipeline, path, runs=20, steps=8, batch_size=2)
    assert len(steps) < 10 * 8
    assert TrajectoryStore.open(path).committed_batches() == [0]
    monkeypatch.undo()
    record(tiny_pipeline, path, runs=20, steps=8, batch_size=2, resume=True)
    assert open_runs(path).sizes["run"] == 20


def test_the_second_interrupt_does_not_wait() -> None:
    import os
    import signal

    notices: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    with FinishBatch(lambda: notices.append(1)) as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert notices == [1]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_ends_after_the_batch(
    tiny_pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "batch" and event["batch"] == 0:
            os.kill(os.getpid(), signal.SIGINT)

    path = tmp_path / "runs.zarr"
    with pytest.raises(KeyboardInterrupt):
        record(tiny_pipeline, path, runs=40, steps=6, batch_size=2, progress=tell)
    done = TrajectoryStore.open(path).committed_batches()
    assert 1 <= len(done) < 20
    record(tiny_pipeline, path, runs=40, steps=6, batch_size=2, resume=True)
    assert open_runs(path).sizes["run"] == 40


def test_a_gap_in_the_settings_is_named() -> None:
    from asced_recorders.writing.options import Settings

    with pytest.raises(InputError, match="need the field checkpoint_sample"):
        Settings(fields=("eps",), checkpoints=(1,))


class Interrupt:
    """Raises KeyboardInterrupt at one line of a function, as a signal would between two lines."""

    def __init__(self, function: Callable[..., Any], text: str) -> None:
        lines, first = inspect.getsourcelines(inspect.unwrap(function))
        self.code = inspect.unwrap(function).__code__
        (self.line,) = (first + i for i, line in enumerate(lines) if text in line)
        self.done = False

    def _trace(self, frame: Any, event: str, _: Any) -> Any:
        if frame.f_code is self.code and event == "line" and frame.f_lineno == self.line:
            self.done = True
            raise KeyboardInterrupt
        return self._trace if frame.f_code is self.code or event == "call" else None

    def __enter__(self) -> Interrupt:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)


def given(recorder: Any, value: float) -> None:
    """Hand over a batch of one step."""
    x = np.full((2, 1, 4, 4), value, np.float32)
    recorder.step(sample=x, model_output=x, alpha=0.5, sigma=0.5)
    recorder.end(x)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (Session._join, "self.store = store"),
        (BatchWriter.sweep, "backend = "),
        (Session.append, "runs = range"),
        (BackgroundWriter.submit, "notify_all"),
        (CustomRecorder._commit, "self._buffer, self._facts"),
    ],
)
def test_an_interrupt_in_a_call_loses_no_other_batch(
    function: Any, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "runs.zarr"
    with CustomRecorder(path, (1, 4, 4), 1, fsync=False) as recorder:
        if function is BatchWriter.sweep:
            given(recorder, 5.0)  # its store is there, and its batches are being gone through
        interrupt = Interrupt(function, text)
        with interrupt, pytest.raises(KeyboardInterrupt):
            given(recorder, 1.0)
        assert interrupt.done
        given(recorder, 2.0)
        given(recorder, 3.0)
    ends = open_runs(path)["sample"].values[:, 0, 0, 0].tolist()
    assert [end for end in ends if end not in (1.0, 5.0)] == [2.0, 2.0, 3.0, 3.0]
    assert TrajectoryStore.open(path).verify().ok


def test_a_store_that_another_process_made_meanwhile_is_refused_each_time(tmp_path: Path) -> None:
    """It is not taken for the one that an interrupted call has made."""
    path = tmp_path / "runs.zarr"
    recorder = CustomRecorder(path, (1, 4, 4), 1, fsync=False)
    with CustomRecorder(path, (1, 4, 4), 1, fsync=False) as other:
        given(other, 1.0)
    for _ in range(2):
        with pytest.raises(StoreExistsError):
            given(recorder, 2.0)
    recorder.close(quietly=True)
    assert open_runs(path)["sample"].values[:, 0, 0, 0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (CustomRecorder.__init__, "self._closed = False"),
        (Session.__init__, "self.background = "),
        (BackgroundWriter.__init__, "self._done = "),
    ],
)
def test_an_interrupt_while_a_recorder_is_made_leaves_no_thread(
    function: Any, text: str, tmp_path: Path
) -> None:
    before = set(threading.enumerate())
    path = tmp_path / "runs.zarr"
    with Interrupt(function, text) as interrupt, pytest.raises(KeyboardInterrupt):
        CustomRecorder(path, (1, 4, 4), 1, fsync=False)
    assert interrupt.done
    assert set(threading.enumerate()) <= before
    with CustomRecorder(path, (1, 4, 4), 1, fsync=False) as recorder:
        given(recorder, 1.0)
    assert open_runs(path).sizes["run"] == 2


@pytest.mark.parametrize("text", ["self._closed = True", "self._done.wait()"])
def test_what_is_queued_is_written_although_its_end_is_interrupted(
    text: str, tmp_path: Path
) -> None:
    recorder = CustomRecorder(tmp_path / "runs.zarr", (1, 4, 4), 1, fsync=False)
    background, gate = recorder.session.background, threading.Event()
    write = background._write
    background._write = lambda *given: gate.wait() and write(*given)
    given(recorder, 1.0)
    given(recorder, 2.0)
    recorder._closed = True  # past what waits for the disk before: `Recorder` closes its session
    with Interrupt(BackgroundWriter.close, text), pytest.raises(KeyboardInterrupt):
        recorder.session.close()
    gate.set()
    recorder.close()
    assert background._done.is_set()
    assert open_runs(tmp_path / "runs.zarr")["sample"].values[:, 0, 0, 0].tolist() == [1, 1, 2, 2]
    with pytest.raises(InputError, match="closed"):
        given(recorder, 3.0)
