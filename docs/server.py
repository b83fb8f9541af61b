"""A server that corrects: one pipeline, requests that wait their turn.

PIPELINE=my-model THRESHOLDS=thresholds.json uvicorn --app-dir docs --factory server:app
"""

from __future__ import annotations

import io
import os
from threading import Lock
from typing import Any

import torch
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, Field

from asced_analysis import Corrector, Thresholds
from asced_recorders import load_pipeline


class Request(BaseModel):
    """What a client asks for."""

    prompt: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    steps: int = Field(default=25, ge=1, le=1000)


def make_app(pipe: Any, thresholds: Thresholds, *, monitor: Any = None) -> FastAPI:
    """Serve a pipeline.

    Parameters
    ----------
    pipe : DiffusionPipeline
    thresholds : Thresholds
    monitor : asced_analysis.monitoring.Monitor, optional
        Counts what is flagged, for Prometheus.
    """
    server = FastAPI(title="asced")
    turn = Lock()  # a pipeline and its scheduler hold the state of one call
    pipe.set_progress_bar_config(disable=True)

    @server.post("/images", response_class=Response)
    def images(request: Request) -> Response:  # FastAPI calls this in a thread
        call: dict[str, Any] = {
            "num_inference_steps": request.steps,
            "generator": torch.Generator().manual_seed(request.seed),
        }
        if request.prompt is not None:
            call["prompt"] = request.prompt
        # A corrector of its own, so that every request reads its own report.
        corrector = Corrector(thresholds, seed=request.seed, monitor=monitor)
        try:
            with turn, corrector.attach(pipe):
                image = pipe(**call).images[0]
        except (TypeError, ValueError) as error:  # of the call: a prompt too many, too few steps
            raise HTTPException(422, str(error)) from error
        found = corrector.report[0]
        png = io.BytesIO()
        image.save(png, "PNG")
        headers = {
            "asced-flagged": str(found.flagged).lower(),
            "asced-score": f"{found.score:.6g}",
            "asced-edited": f"{found.changed:.4f}",
        }
        return Response(png.getvalue(), media_type="image/png", headers=headers)

    return server


def app() -> FastAPI:
    """Make what uvicorn serves, from PIPELINE (a folder or name) and THRESHOLDS (a file)."""
    pipe = load_pipeline(os.environ["PIPELINE"])
    if torch.accelerator.is_available():
        pipe = pipe.to(torch.accelerator.current_accelerator())
    return make_app(pipe, Thresholds.load(os.environ["THRESHOLDS"]))
