"""Node: record every run that is sampled with a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asced_recorders.comfyui.listening import Sampling, listen
from asced_recorders.custom.loop import CustomRecorder
from asced_recorders.tap.events import StepEvent, TapListener
from asced_recorders.writing.corrections import corrector_among
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class Record:
    """A store beside the output: each sampling with the model adds a batch of runs."""

    CATEGORY = "asced"
    FUNCTION = "record"
    RETURN_TYPES = ("MODEL",)
    DESCRIPTION = (
        "Records each run that is sampled with the model into a store in ComfyUI's output folder. "
        "One store holds one sampler, schedule, size and model; put it after Correct."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """What the node is given."""
        return {
            "required": {
                "model": ("MODEL",),
                "name": ("STRING", {"default": "asced/runs", "tooltip": "In the output folder"}),
            },
            "optional": {
                "prompt": (
                    "STRING",
                    {"default": "", "multiline": True, "tooltip": "Kept beside the runs"},
                ),
                "hash_weights": (
                    "BOOLEAN",
                    {"default": True, "tooltip": "So that thresholds know this model from others"},
                ),
            },
        }

    def record(
        self, model: Any, name: str, prompt: str = "", hash_weights: bool = True
    ) -> tuple[Any]:
        """Give a copy of the model, whose runs are recorded."""
        path = store_path(name)

        def attach(sampling: Sampling) -> Any:
            return recording(sampling, path, prompt=prompt, hash_weights=hash_weights)

        return (listen(model, attach),)


class StoreListener(TapListener):
    """Hands the steps of a sampler to a recorder."""

    def __init__(self, recorder: CustomRecorder) -> None:
        self.recorder = recorder
        self.event: StepEvent | None = None

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Keep a step."""
        self.event = event
        return None

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Record it, once its next sample is known."""
        assert self.event is not None
        self.recorder.step(
            sample=self.event.sample,
            model_output=self.event.model_output,
            alpha=event.alpha,
            sigma=event.sigma,
            prediction_type="sample",
            timestep=float(event.table.timestep[event.step]),
            next_sample=next_sample,
        )
        if event.step + 1 == event.steps:
            self.recorder.end(next_sample)
        return None


class Beside:
    """What a recorder keeps of a correction that is another node's work.

    Parameters
    ----------
    corrector : TapListener
    """

    def __init__(self, corrector: Any) -> None:
        self.correction, self.corrected = corrector.correction, corrector.corrected

    def step(self, *, next_sample: Tensor, **facts: Any) -> Tensor:
        """Nothing: the sample is corrected already."""
        return next_sample


@contextmanager
def recording(
    sampling: Sampling, path: Path, *, prompt: str = "", hash_weights: bool = True
) -> Iterator[TapListener]:
    """A listener that adds the runs of one sampling to a store.

    Parameters
    ----------
    sampling : Sampling
    path : Path
        Of the store; it is made where it does not exist.
    prompt : str
        Kept beside the runs.
    hash_weights : bool
        Whether the store says which model it is of. Weights that ComfyUI streams from the host
        while it samples are hashed as they lie there, without a LoRA's patches.
    """
    if not sampling.whole:
        raise InputError(
            f"the sampler stops at sigma {float(sampling.sigmas[-1]):.4g}, with noise left: whole "
            "runs are recorded; sample in one node, to the end"
        )
    model = sampling.guider.inner_model
    patcher = sampling.guider.model_patcher
    attributes = {
        "pipeline": f"ComfyUI {type(getattr(model, 'model_config', model)).__name__}",
        "scheduler_class": sampling.table.scheduler_class,
        "call": {
            "sampler": sampling.name,
            "model_sampling": [
                base.__name__
                for base in type(patcher.get_model_object("model_sampling")).__mro__[1:-1]
                if base.__module__ != "torch.nn.modules.module"
            ],
            "guider": type(sampling.guider).__name__,
            "inpaints": sampling.inpaints,
        },
    }
    corrector = corrector_among(sampling.listeners)
    recorder = CustomRecorder(
        path,
        sampling.shape[1:],
        sampling.table.steps,
        resume=path.exists(),
        attributes=attributes,
        model=model.diffusion_model if hash_weights else None,
        corrector=None if corrector is None else Beside(corrector),
    )
    with recorder:
        facts: dict[str, Any] = {"seed": [sampling.seed, *[-1] * (sampling.shape[0] - 1)]}
        if prompt:
            facts["prompt"] = [prompt] * sampling.shape[0]
        scale = getattr(sampling.guider, "cfg", None)
        if scale is not None:
            facts["guidance_scale"] = float(scale)
        recorder.describe(**facts)
        yield StoreListener(recorder)


def store_path(name: str) -> Path:
    """Where a store of this name lies in ComfyUI's output folder.

    Raises
    ------
    InputError
        For a name that leaves the folder, or none.
    """
    import folder_paths  # ComfyUI's own

    root = Path(folder_paths.get_output_directory()).resolve()
    path = (root / name.strip()).resolve()
    if not name.strip() or root not in path.parents:
        raise InputError(f"{name!r} is no name of a store in {root}: give one like asced/runs")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path if path.suffix == ".zarr" else path.with_name(f"{path.name}.zarr")
