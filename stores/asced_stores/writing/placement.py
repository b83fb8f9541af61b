"""Which of several writers a process is."""

from __future__ import annotations

import os

from asced_stores.errors import InputError

_SLURM = ("SLURM_PROCID", "SLURM_NTASKS")
_RANKS = (("RANK", "WORLD_SIZE"), _SLURM)
_SRUN = ("SLURM_STEP_ID", "SLURM_STEPID", "SLURM_STEP_NUM_TASKS")  # set by srun alone


def placement(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """Rank and number of writers, by default as torchrun, accelerate or SLURM set them.

    In a batch script of SLURM, outside ``srun``, there is one process, whatever SLURM_NTASKS says.

    Raises
    ------
    InputError
        If they are no numbers, or the rank is not below the number of writers.
    """
    if rank is None and world_size is None:
        for names in _RANKS:
            alone = not any(name in os.environ for name in _SRUN)
            if names == _SLURM and alone and os.environ.get("SLURM_PROCID", "0") == "0":
                continue
            if all(name in os.environ for name in names):
                try:
                    rank, world_size = (int(os.environ[name]) for name in names)
                except ValueError as error:
                    raise InputError(f"{' and '.join(names)} are no numbers: {error}") from error
                break
    rank, world_size = rank or 0, 1 if world_size is None else world_size
    if not 0 <= rank < world_size:
        raise InputError(f"rank is {rank} of {world_size}: expected 0 to {world_size - 1}")
    return rank, world_size
