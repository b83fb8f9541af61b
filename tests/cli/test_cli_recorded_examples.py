"""The short examples of ``asced record --help``, run as they are printed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from help_examples import command_of
from hub_server import serving
from tiny_pipelines import stable_diffusion

from asced_cli.main import run
from asced_stores import open_runs

pytestmark = [pytest.mark.pages, pytest.mark.timeout(900)]

PROMPTS = ("a red house", "a green tree", "a blue boat")
PRINTED = (command_of("record").epilog or "").replace("\\\n", "").splitlines()
LINES = [line for line in map(str.strip, PRINTED) if line.startswith(("asced ", "torchrun "))]


def test_there_are_examples() -> None:
    assert len(LINES) == 6


@pytest.mark.parametrize("line", LINES)
def test_an_example_that_records_runs_as_printed(
    line: str, tmp_path: Path, make_tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(line)
    monkeypatch.chdir(tmp_path)
    make_tiny("DDIM", 1).save_pretrained("my-model")
    Path("prompts.txt").write_text("\n".join(PROMPTS))
    if "--thresholds" in words:
        steps = words[words.index("--steps") + 1] if "--steps" in words else "25"
        some = f"record --pipeline fashion --runs 60 --steps {steps} --out some.zarr"
        assert run(some.split()) == 0
        assert run(["calibrate", "some.zarr", "--out", "thresholds.json"]) == 0
    out = words[words.index("--out") + 1]
    if words[0] == "torchrun":
        beside = str(Path(sys.executable).parent)
        where = {"PATH": os.pathsep.join((beside, os.environ["PATH"]))}
        subprocess.run(words, check=True, timeout=800, env={**os.environ, **where})
        assert set(open_runs(out)["rank"].values.tolist()) == {0, 1}
    elif "owner/name" in words:
        with serving() as hub:
            stable_diffusion().save_pretrained("served")
            files = {
                path.relative_to("served").as_posix(): path.read_bytes()
                for path in Path("served").rglob("*")
                if path.is_file()
            }
            hub.repositories["model", "owner/name"] = [("1" * 40, files)]
            where = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "cache")}
            command = [sys.executable, "-m", "asced_cli", *words[1:]]
            subprocess.run(command, check=True, timeout=800, env={**os.environ, **where})
    else:
        assert run(words[1:]) == 0
    found = open_runs(out)
    asked = int(words[words.index("--runs") + 1]) if "--runs" in words else len(PROMPTS)
    if "--keep" in words:
        assert 0 < found.sizes["run"] < asked
    else:
        assert found.sizes["run"] == asked
