"""``asced view``: look at runs in a browser."""

from __future__ import annotations

import signal
import sys
import threading
import webbrowser
from typing import Any

import click

from asced_analysis.viewer.options import ViewOptions
from asced_cli import completion
from asced_cli.command import asced_command, emit
from asced_cli.judging import judge_option, real_option
from asced_cli.option_classes import options_of
from asced_cli.options import pipeline_option, store_argument

option = options_of(ViewOptions)


@asced_command(
    (
        "Runs alone, scored by how far their features lie from the others'",
        "asced view runs.zarr",
    ),
    (
        "With thresholds under a slider, and corrected versions",
        "asced view runs.zarr --thresholds thresholds.json --replay corrected.zarr",
    ),
    ("Two stores side by side, run by run", "asced view before.zarr --beside after.zarr"),
    (
        "Sorted by how far each picture lies from real ones",
        "asced view runs.zarr --real photos",
    ),
    (
        "On another machine: forward its port (ssh -L 8717:127.0.0.1:8717 HOST) and open the "
        "printed address here",
        "asced view runs.zarr --port 8717",
    ),
    sections={"Serving": "host port open_browser no_cache", "The model": "pipeline override"},
)
@store_argument
@option(
    "thresholds",
    metavar="FILE",
    shell_complete=completion.files(".json"),
    help="File of asced calibrate; shows scores, masks and levels.",
)
@option(
    "replay",
    metavar="STORE",
    shell_complete=completion.stores,
    help="Store of asced replay; shows corrected versions.",
)
@judge_option
@real_option
@click.option(
    "--beside",
    metavar="STORE",
    shell_complete=completion.stores,
    help="A second store, shown beside the first at the same run and step. A replay has no steps: "
    "its ends are shown, as with --replay.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Any other is reached over the network: unencrypted, by token.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8717,
    show_default=True,
    help="0 for any free one.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@click.option("--no-cache", is_flag=True, help="Keep no scores beside the store.")
@option("override")
@pipeline_option
def command(
    store: str,
    beside: str | None,
    host: str,
    port: int,
    open_browser: bool,
    no_cache: bool,
    **more: Any,
) -> None:
    """Serve a page to look at the runs of STORE, until Ctrl-C.

    A gallery to sort, one run step by step, a slider for the threshold, masks and labels by hand,
    and exports. The page needs no network beyond this machine.
    """
    from asced_analysis.accessor import open_runs
    from asced_analysis.viewer.opening import open_session
    from asced_analysis.viewer.server import ViewerServer

    runs = open_runs(store)
    second = None if beside is None else open_runs(beside)
    if second is not None and more["replay"] is None and "replay_of" in second.attrs:
        more["replay"], second = beside, None  # it has no steps: its ends stand at each run's own
    more["keep_scores"] = not no_cache
    session = open_session(runs, **more)
    alone = {"replay": None, "judge": None, "real": None}
    other = None if second is None else open_session(second, **{**more, **alone})
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with ViewerServer(session, beside=other, host=host, port=port) as server:
        emit(
            {"url": server.url, "port": server.port, "runs": int(runs.sizes["run"])},
            table=[
                ("runs", f"{runs.sizes['run']:,} of {store}"),
                ("open", server.url),
                ("stop", "Ctrl-C"),
            ],
        )
        sys.stdout.flush()
        if open_browser:
            webbrowser.open(server.url)
        stopped.wait()
