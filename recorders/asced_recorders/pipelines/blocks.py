"""A block of Modular Diffusers that corrects what the block inside it samples."""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import copy, deepcopy
from typing import Any, Protocol, Self

from diffusers.modular_pipelines.modular_pipeline import (
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
)

from asced_recorders.pipelines.calls import default_arguments, given
from asced_stores.errors import InputError


class Attachable(Protocol):
    """What listens to a call of a pipeline, as `asced_analysis.Corrector` does."""

    def attach(
        self, pipeline: Any, arguments: dict[str, Any] | None = None
    ) -> AbstractContextManager[Any]:
        """Listen inside the ``with``."""
        ...


class AscedCorrect(ModularPipelineBlocks):
    """Corrects what a block samples; stands in a block graph in that block's place.

    Parameters
    ----------
    corrector : Corrector
        Of `asced_analysis`; copies of the block share it, so that its report can be read.
    block : ModularPipelineBlocks
        Steps through a scheduler: a denoising loop, or a block that holds one.

    Examples
    --------
    >>> from asced_analysis import Corrector
    >>> from asced_recorders import AscedCorrect
    >>> from diffusers import FluxAutoBlocks
    >>> blocks = FluxAutoBlocks()
    >>> AscedCorrect.insert(Corrector.from_file("thresholds.json"), blocks)  # loops found
    1

    Then ``pipe = blocks.init_pipeline("black-forest-labs/FLUX.1-dev")`` corrects.
    """

    def __init__(self, corrector: Attachable, block: Any) -> None:
        if not any(spec.name.endswith("scheduler") for spec in block.expected_components):
            raise InputError(
                f"{type(block).__name__} uses no scheduler, so that there are no steps to correct: "
                "put AscedCorrect around the denoising block"
            )
        super().__init__()  # type: ignore[no-untyped-call]
        self.corrector = corrector
        self.model_name = block.model_name
        self.block = block

    @classmethod
    def insert(cls, corrector: Attachable, blocks: Any) -> int:
        """Put itself around every denoising loop of a graph, also of those chosen by the inputs.

        Parameters
        ----------
        corrector : Corrector
        blocks : SequentialPipelineBlocks
            Of a pipeline; changed in place, before ``init_pipeline``.

        Returns
        -------
        int
            How many loops there are.

        Raises
        ------
        InputError
            If there is none.
        """
        found = cls._insert(corrector, blocks)
        if not found:
            raise InputError(
                f"{type(blocks).__name__} has no denoising loop (LoopSequentialPipelineBlocks): "
                "put AscedCorrect(corrector, block) in the place of the block that samples"
            )
        return found

    @classmethod
    def _insert(cls, corrector: Attachable, blocks: Any) -> int:
        found = 0
        for name, block in list(blocks.sub_blocks.items()):
            if isinstance(block, LoopSequentialPipelineBlocks):
                blocks.sub_blocks[name] = cls(corrector, block)
                found += 1
            elif block.sub_blocks:  # diffusers shares these between all graphs of a process
                own = copy(block)
                own.sub_blocks = copy(block.sub_blocks)
                blocks.sub_blocks[name] = own
                found += cls._insert(corrector, own)
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy the block inside; ``init_pipeline`` copies its blocks."""
        return type(self)(self.corrector, deepcopy(self.block, memo))

    @property
    def description(self) -> str:
        """What it does, and what the block inside does."""
        own = "Detects artifacts in the score's dynamics and corrects them."
        return f"{own} {self.block.description}"

    @property
    def expected_components(self) -> Any:
        """Those of the block inside."""
        return self.block.expected_components

    @property
    def expected_configs(self) -> Any:
        """Those of the block inside."""
        return self.block.expected_configs

    @property
    def inputs(self) -> Any:
        """Those of the block inside."""
        return self.block.inputs

    @property
    def required_inputs(self) -> Any:
        """Those of the block inside."""
        return self.block.required_inputs

    @property
    def intermediate_outputs(self) -> Any:
        """Those of the block inside."""
        return self.block.intermediate_outputs

    def __call__(self, components: Any, state: Any) -> Any:
        """Let the block inside sample, and correct."""
        with self.corrector.attach(components, default_arguments(components) | given(state)):
            return self.block(components, state)
