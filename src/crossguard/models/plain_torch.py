"""`plain_torch`: PyTorch as this package computes with it, whatever the caller has set."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn


@contextmanager
def plain_torch() -> Iterator[None]:
    """Compute as on a fresh start: gradients may be taken, float32, no autocast, new tensors on the CPU.

    What the caller has set (`inference_mode`, `no_grad`, `autocast`, default dtype and device) would break attacks or
    change figures in silence; it holds again afterwards. Deterministic algorithms and thread counts stay as they are.
    Use it as a decorator of what users call.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype)
        yield


def check_weights(module: nn.Module) -> None:
    """Refuse weights that no gradient can flow past.

    Raises:
        ValueError: they were made inside `torch.inference_mode`.
    """
    if any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers())):
        raise ValueError(
            "Expected a model made outside of torch.inference_mode, but its weights were made inside, so that no "
            "gradients can be taken: make or load it before the block."
        )
