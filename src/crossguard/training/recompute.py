"""Activation checkpointing: only the inputs of each layer are kept, and the rest is computed again on the way back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a model: what stands in its outermost lists of modules, such as a transformer's blocks.

    Raises:
        ValueError: it has no such list.
    """
    found: list[nn.Module] = []

    def look(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(child, nn.ModuleList):
                found.extend(layer for layer in child if next(layer.parameters(), None) is not None)
            else:
                look(child)

    look(model)
    if not found:
        raise ValueError(
            f"Expected a model with layers in a torch.nn.ModuleList for recompute=True, but {type(model).__name__} has "
            "none: use `chunk_size`."
        )
    return found


@contextmanager
def recomputed(model: nn.Module, *, wanted: bool) -> Iterator[None]:
    """Let a model keep little for the way back, for a while; gradients are the same.

    Args:
        model: changed by attributes of its layers alone, which are taken away again.
        wanted: False does nothing.
    """
    layers = layers_of(model) if wanted else []
    for layer in layers:
        layer.forward = partial(_again, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _again(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    return checkpoint(partial(forward, **named), *given, use_reentrant=False)
