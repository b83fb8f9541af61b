"""The workflow file: its nodes are there, and ComfyUI's executor runs it."""

from __future__ import annotations

import asyncio
import inspect
import json
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asced_analysis.comfyui
from asced_stores import open_runs
from asced_stores.errors import InputError

PACK = Path(asced_analysis.comfyui.__file__).parent
WORKFLOW = json.loads((PACK / "workflow.json").read_text())
LINE = "from asced_analysis.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS\n"


def test_the_workflow_fits_its_nodes() -> None:
    nodes = asced_analysis.comfyui.NODE_CLASS_MAPPINGS
    assert set(nodes) == set(asced_analysis.comfyui.NODE_DISPLAY_NAME_MAPPINGS)
    for node in WORKFLOW.values():
        kind = nodes.get(node["class_type"])
        if kind is None:
            continue
        taken = kind.INPUT_TYPES()
        known = {**taken["required"], **taken.get("optional", {})}
        assert set(taken["required"]) <= set(node["inputs"]) <= set(known)
        for name, given in node["inputs"].items():
            source = WORKFLOW[given[0]]["class_type"] if isinstance(given, list) else None
            if source in nodes:
                assert nodes[source].RETURN_TYPES[given[1]] == known[name][0]


@pytest.fixture
def folders(engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's folders, in a new place."""
    import folder_paths

    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path


def test_it_runs_in_the_engine(
    engine: Any, tiny: Callable[..., Any], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Record, calibrate, correct, through custom nodes that the engine loads and executes."""
    import torch

    from asced_analysis.calibration import calibrate

    class Tiny:
        """In the place of a checkpoint: what the workflow's loader and encoders give."""

        FUNCTION, RETURN_TYPES = "give", ("MODEL", "CONDITIONING", "LATENT")

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
            return {"required": {}}

        def give(self) -> Any:
            latent = {"samples": torch.zeros(10, 4, 8, 8)}
            return tiny("FLOW"), [[torch.zeros(1, 3, 16), {}]], latent

    (folders / "asced.py").write_text(LINE)
    import execution

    async def load() -> bool:
        found: bool = await engine.load_custom_node(str(folders / "asced.py"))
        assert await engine.load_custom_node(str(PACK))  # the folder itself, by a link
        own = Path(engine.__file__).parent / "comfy_extras"
        await engine.load_custom_node(str(own / "nodes_preview_any.py"))
        return found

    assert asyncio.run(load())
    monkeypatch.setitem(engine.NODE_CLASS_MAPPINGS, "Tiny", Tiny)

    server = types.SimpleNamespace(
        client_id=None, last_node_id=None, send_sync=lambda *_: None, queue_updated=lambda: None
    )
    taken = inspect.signature(execution.PromptExecutor).parameters
    newer = {"cache_args": {"ram": 0.0, "lru": 0}} if "cache_args" in taken else {}
    executor = execution.PromptExecutor(server, **newer)

    def queue(prompt: dict[str, Any]) -> Any:
        valid, error, outputs, details = asyncio.run(execution.validate_prompt("1", prompt, None))
        if not valid:
            return f"{error} {details}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            executor.execute(prompt, "1", {}, outputs)
        assert executor.success, executor.status_messages
        return executor.history_result["outputs"]

    def prompt(seed: int, record: str, correct: bool) -> dict[str, Any]:
        nodes = {key: json.loads(json.dumps(node)) for key, node in WORKFLOW.items()}
        for key in ("2", "3", "4", "11", "12"):  # text, size and pictures need a checkpoint
            del nodes[key]
        nodes["1"] = {"class_type": "Tiny", "inputs": {}}
        steps = nodes["8"]["inputs"]
        steps |= {"positive": ["1", 1], "negative": ["1", 1], "latent_image": ["1", 2]}
        steps |= {"seed": seed, "steps": 12}
        nodes["7"]["inputs"]["name"] = record
        nodes["20"] = {
            "class_type": "SaveLatent",
            "inputs": {"samples": ["8", 0], "filename_prefix": "end"},
        }
        if not correct:
            for key in ("5", "6", "9", "10"):
                del nodes[key]
            nodes["7"]["inputs"]["model"] = ["1", 0]
        return nodes

    missing = queue(prompt(1, "asced/corrected", correct=True))
    assert "thresholds.json does not exist" in missing
    for seed in (1, 2, 3):
        queue(prompt(seed, "asced/runs", correct=False))
    runs = folders / "output" / "asced" / "runs.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        thresholds = calibrate(runs, "calibrated", false_alarm_rate=0.5)
    thresholds.save(folders / "input" / "thresholds.json")
    for seed in (1, 2):
        text = queue(prompt(seed, "asced/corrected", correct=True))["10"]["text"][0]
        assert text.count("image ") == 10
    corrected = open_runs(folders / "output" / "asced" / "corrected.zarr")
    assert corrected.sizes["run"] == 20
    assert corrected.attrs["pipeline"] == "ComfyUI Config"
    assert corrected["seed"].values.tolist() == [1, *[-1] * 9, 2, *[-1] * 9]


def test_a_store_stays_in_the_output_folder(engine: Any, folders: Path) -> None:
    from asced_recorders.comfyui.recording import store_path

    assert store_path(" asced/runs ") == folders / "output" / "asced" / "runs.zarr"
    for name in ("../runs", "", "/etc/runs"):
        with pytest.raises(InputError, match="no name of a store"):
            store_path(name)
