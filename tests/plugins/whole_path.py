"""The whole path with parts of another distribution; run by the test in a process of its own.

python whole_path.py PIPELINE FOLDER
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

from click.shell_completion import ShellComplete

from asced_cli.main import cli, run


def main(pipeline: str, folder: Path) -> dict[str, object]:
    """Say what came out at each station."""
    runs, thresholds = str(folder / "runs.zarr"), str(folder / "t.json")
    replayed, judged, page = (str(folder / name) for name in ("c.zarr", "e.json", "report.html"))
    engine = ShellComplete(cli, {}, "asced", "_ASCED_COMPLETE")
    found: dict[str, object] = {}

    def offered(*words: str) -> list[str]:
        return [item.value for item in engine.get_completions([*words], "")]

    def asced(*words: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = run([*words])
        assert status == 0, (words, status)
        return out.getvalue()

    found["variants"] = offered("calibrate", runs, "--variant")
    found["strategies"] = offered("replay", runs, "--strategy")
    found["features"] = offered("evaluate", runs, replayed, "--judge")
    found["help"] = "".join(asced(name, "--help") for name in ("calibrate", "replay", "evaluate"))
    more = ("--runs", "60", "--steps", "8", "--batch-size", "20", "--seed", "0")
    asced("record", "--pipeline", pipeline, *more, "--out", runs)
    own = ("--variant", "last_change", "--strategy", "freeze", "--false-alarm-rate", "0.2")
    asced("calibrate", runs, *own, "--window", "0.2", "0.6", "--out", thresholds)
    asced("detect", runs, "--thresholds", thresholds, "--out", str(folder / "d.npz"))
    asced(
        "replay", runs, "--thresholds", thresholds, "--pipeline", pipeline,
        "--set", "scale=0.25", "--out", replayed,
    )  # fmt: skip
    asced("evaluate", runs, replayed, "--pipeline", pipeline, "--judge", "edges", "--out", judged)
    asced(
        "report", runs, "--thresholds", thresholds, "--replay", replayed, "--evaluation", judged,
        "--pipeline", pipeline, "--out", page,
    )  # fmt: skip

    from asced_analysis import Thresholds
    from asced_analysis.correction import Corrector
    from asced_analysis.thresholds import schema
    from asced_analysis.viewer import open_session
    from asced_recorders import load_pipeline
    from asced_stores import TrajectoryStore

    pipe = load_pipeline(pipeline)
    corrector = Corrector(Thresholds.load(thresholds))
    with corrector.attach(pipe):
        pipe(batch_size=4, num_inference_steps=8, output_type="np")
    attributes = TrajectoryStore.open(replayed).attributes
    session = open_session(runs, thresholds=thresholds)
    return found | {
        "schema": schema()["properties"]["variant"]["enum"],
        "thresholds": Thresholds.load(thresholds).variant,
        "replayed": [attributes["strategy"], attributes["strategy_parameters"]],
        "evaluated": json.loads(Path(judged).read_text())["strategy"],
        "judge": json.loads(Path(judged).read_text())["judge"]["name"],
        "reported": Path(page).read_text(),
        "corrected": len(corrector.report),
        "viewer": type(session).__name__,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]))))
