"""Accelerate on a device that the caller chooses, in one process or many, in bfloat16 where the device has it."""

from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import patch_environment

from crossguard.checks import check_choice
from crossguard.launch import launched
from crossguard.world import ALONE, World


def make_accelerator(
    device: torch.device, *, precision: str, tracker: str | None = None, folder: Path | None = None
) -> Accelerator:
    """Return an `Accelerator` for a device.

    Accelerate keeps one process-wide state; a state of another device or precision is replaced. Where several processes
    were launched (`accelerate launch`, `torchrun`), each gets its own device of the kind.

    Args:
        device: where to compute.
        precision: "auto" is bfloat16 on GPUs that have it, else float32.
        tracker: "tensorboard", or None.
        folder: where the tracker writes.

    Raises:
        ValueError: an unknown precision.
    """
    check_choice(precision, ("auto", "float32", "bfloat16"), "precision")
    if precision == "auto":
        able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if able else "float32"
    mixed = "bf16" if precision == "bfloat16" else "no"
    several = launched() > 1
    state = AcceleratorState._shared_state or PartialState._shared_state
    if state:
        there = state.get("device")
        same = there.type == device.type if several and there is not None else there == device
        if not same or state.get("_mixed_precision", mixed) != mixed or (state.get("num_processes", 1) > 1) != several:
            AcceleratorState._reset_state(reset_partial_state=True)
            GradientState._reset_state()
    with nullcontext() if several else patch_environment(accelerate_torch_device=str(device)):
        return Accelerator(
            cpu=device.type == "cpu", mixed_precision=mixed, log_with=tracker, project_dir=folder and str(folder)
        )


def world_of(accelerator: Accelerator) -> World:
    """Return the processes that Accelerate found."""
    if accelerator.num_processes == 1:
        return ALONE
    return World(accelerator.process_index, accelerator.num_processes)
