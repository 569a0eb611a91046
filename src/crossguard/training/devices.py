"""Accelerate on a device that the caller chooses, in bfloat16 where the device computes in it."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import patch_environment


def make_accelerator(device: torch.device, *, precision: str) -> Accelerator:
    """Return an `Accelerator` for a device.

    Accelerate keeps one process-wide state; a state of another device or precision is replaced.

    Args:
        device: where to compute.
        precision: "auto" is bfloat16 on GPUs that have it, else float32.

    Raises:
        ValueError: an unknown precision, or several processes were launched.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"Expected `precision` 'auto', 'float32' or 'bfloat16', but got {precision!r}.")
    if precision == "auto":
        able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bfloat16" if able else "float32"
    mixed = "bf16" if precision == "bfloat16" else "no"
    state = AcceleratorState._shared_state
    if state and (state.get("device") != device or state.get("_mixed_precision") != mixed):
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    with patch_environment(accelerate_torch_device=str(device)):
        accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=mixed)
    if accelerator.num_processes > 1:
        raise ValueError(
            f"Expected one process (negatives are not gathered over processes), but {accelerator.num_processes} "
            "were launched."
        )
    return accelerator
