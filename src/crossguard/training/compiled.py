"""`torch.compile` for the image encoder, where most of a step's time goes."""

import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from crossguard.models import FusionModel

_COMPILERS = ("c++", "g++", "clang++")


def check_compiler(device: torch.device) -> None:
    """Refuse to compile where that cannot work.

    Raises:
        ValueError: a CPU without a C++ compiler, or a GPU without Triton.
    """
    if device.type == "cpu":
        wanted = (os.environ["CXX"],) if os.environ.get("CXX") else _COMPILERS
        if not any(shutil.which(name) for name in wanted):
            raise ValueError(
                f"Expected a C++ compiler ({', '.join(wanted)}) for compile=True on a CPU, but found none: "
                "install one, or leave `compile` off."
            )
    else:
        try:
            importlib.import_module("triton")
        except ImportError as error:
            raise ValueError(
                f"Expected Triton for compile=True on {device.type!r}, but it is not here: leave `compile` off."
            ) from error


@contextmanager
def compiled_images(model: nn.Module, *, wanted: bool) -> Iterator[None]:
    """Compile a model's image encoder for a while; texts, whose lengths vary, are left alone.

    Args:
        model: changed by attributes of the instance alone, which are taken away again.
        wanted: False does nothing.
    """
    names = ["encode_image", *(["encode_image_states"] if isinstance(model, FusionModel) else [])] if wanted else []
    for name in names:
        setattr(model, name, torch.compile(getattr(model, name), dynamic=False))
    try:
        yield
    finally:
        for name in names:
            delattr(model, name)
