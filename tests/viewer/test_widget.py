"""``ds.asced.explore()`` in a real kernel: shown as a widget, answering over the kernel's line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from asced_analysis.viewer import page

pytestmark = pytest.mark.filterwarnings("default")  # of the kernel client, not of our code


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=120)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def ran(client: Any, code: str) -> list[dict[str, Any]]:
    """What a cell sends, until it is done."""
    messages: list[dict[str, Any]] = []
    client.execute_interactive(code, timeout=120, output_hook=messages.append)
    errors = [m["content"] for m in messages if m["msg_type"] in ("error", "stream")]
    assert not errors, errors
    return messages


def test_the_widget_shows_itself_and_answers(kernel: Any, looked_at: Path) -> None:
    found = ran(
        kernel,
        "import warnings; warnings.simplefilter('error')\n"
        "from asced_analysis import open_runs\n"
        f"widget = open_runs({str(looked_at)!r}).asced.explore()\n"
        "widget",
    )
    (result,) = (m for m in found if m["msg_type"] == "execute_result")
    view = result["content"]["data"]["application/vnd.jupyter.widget-view+json"]
    opened = [m for m in found if m["msg_type"] == "comm_open"]
    (comm,) = (m for m in opened if m["content"]["comm_id"] == view["model_id"])
    state = comm["content"]["data"]["state"]
    assert state["runs"] == 96
    assert state["_esm"] == page.script()
    assert state["_css"] == page.style()
    asked(kernel, view["model_id"], 7, "gallery", {"rows": [2, 5]})
    answer = heard(kernel, view["model_id"], 7)
    assert [a["name"] for a in answer["content"]["data"]["content"]["header"]["arrays"]] == [
        "2",
        "5",
    ]
    assert len(bytes(answer["buffers"][0])) == 2 * 16 * 16
    asked(kernel, view["model_id"], 8, "run", {"row": 5000})
    refused = heard(kernel, view["model_id"], 8)["content"]["data"]["content"]
    assert "no run at position 5000" in refused["error"]
    asked(kernel, view["model_id"], 9, "label", {"row": 4, "broken": True})
    heard(kernel, view["model_id"], 9)
    ran(kernel, "assert widget.session.hand.labels == {4: True}\nwidget.close()")


def asked(client: Any, comm: str, number: int, request: str, given: dict[str, Any]) -> None:
    """Send a request as the script does, by a custom message of the widget."""
    content = {"number": number, "request": request, "given": given}
    data = {"method": "custom", "content": content}
    message = client.session.msg("comm_msg", {"comm_id": comm, "data": data})
    client.shell_channel.send(message)


def heard(client: Any, comm: str, number: int) -> dict[str, Any]:
    """The answer of that number."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        message: dict[str, Any] = client.get_iopub_msg(timeout=60)
        content = message["content"]
        if message["msg_type"] != "comm_msg" or content["comm_id"] != comm:
            continue
        if content["data"].get("content", {}).get("number") == number:
            return message
    raise AssertionError(f"no answer to request {number}")
