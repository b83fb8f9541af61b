"""Where a pipeline is loaded to."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from asced_cli.main import run
from asced_recorders.pipelines.devices import available_devices, default_device
from asced_recorders.pipelines.loading import _move, load_pipeline
from asced_stores.errors import InputError
from asced_stores.named_functions import named_function


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "cpu:x", ""])
def test_a_device_that_is_not_there_is_named(device: str, tiny_folder: Path) -> None:
    with pytest.raises(InputError, match=f"device '{device}' cannot be used here .* of cpu"):
        load_pipeline(tiny_folder, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_cuda_is_wrong_input(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="device 'cuda' cannot be used here"):
        load_pipeline(tiny_folder, device="cuda")
    out = tmp_path / "runs.zarr"
    command = [
        "record",
        "--pipeline",
        str(tiny_folder),
        "--runs",
        "2",
        "--steps",
        "2",
        "--out",
        str(out),
    ]
    assert run([*command, "--device", "cuda"]) == 2
    assert "give one of cpu" in capsys.readouterr().err
    assert not out.exists()


def test_devices_that_are_there_are_taken(tiny_folder: Path) -> None:
    for device in available_devices():
        assert load_pipeline(tiny_folder, device=device).device.type == torch.device(device).type


def test_any_kind_of_accelerator_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = torch.accelerator
    monkeypatch.setattr(accelerator, "is_available", lambda: True)
    monkeypatch.setattr(accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(accelerator, "device_count", lambda: 2)
    assert available_devices() == ["cpu", "xpu:0", "xpu:1"]
    assert default_device() == "xpu"


def test_weights_that_do_not_fit_say_what_to_do() -> None:
    class Large:
        def to(self, device: str) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(InputError, match=r"do not fit on cuda.*2\.00 GiB.*--precision float16"):
        _move(Large(), "cuda", "owner/name")


def test_functions_of_a_file_may_bring_dataclasses(tmp_path: Path) -> None:
    path = tmp_path / "random.py"  # called as a module that is there
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Loop:\n"
        "    steps: int = 4\n"
        "def steps():\n"
        "    return Loop().steps\n"
    )
    assert named_function(f"{path}:steps")() == 4
    assert importlib.import_module("random").random() < 1
