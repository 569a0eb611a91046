"""Saving models: a folder is whole or not there."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_model as load_safetensors
from safetensors.torch import save_model as save_safetensors
from torch import nn

from crossguard.runs import atomic_folder

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

Network = TypeVar("Network", bound=nn.Module)


def write_model(folder: Path | str, parts: Iterable[Callable[[Path], Any]]) -> None:
    """Let every part write itself into one new folder, which then takes the place of `folder`."""
    with atomic_folder(folder) as temporary:
        for write in parts:
            write(temporary)


def save_weights(module: nn.Module, folder: Path | str) -> None:
    """Write a module's weights, shared ones once, to `model.safetensors` in a folder; whole or not at all."""
    write_model(folder, [lambda temporary: save_safetensors(module, str(temporary / WEIGHTS))])


def load_weights(module: nn.Module, folder: Path | str) -> None:
    """Read what `save_weights` wrote into a module of the same make.

    Raises:
        ValueError: no whole file, or weights that are missing, unknown or of another shape.
    """
    try:
        load_safetensors(module, str(Path(folder) / WEIGHTS), strict=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"Expected the weights of this very model in {folder}, but they could not be read: {error}"
        ) from error


def save_network(module: nn.Module, config: Mapping[str, Any], folder: Path | str) -> None:
    """Write `config.json` and `model.safetensors` to a folder that `load_network` reads back bit-equal."""
    write_model(
        folder,
        (
            lambda place: (place / CONFIG).write_text(json.dumps(config, indent=2) + "\n"),
            lambda place: save_safetensors(module, str(place / WEIGHTS)),
        ),
    )


def load_network(make: Callable[[dict[str, Any]], Network], folder: Path | str) -> Network:
    """Make a network from the `config.json` of a folder and give it the weights beside it; in evaluation mode.

    Raises:
        OSError, KeyError, RuntimeError, SafetensorError: a file is missing or broken; `load_model` says so in words.
    """
    network = make(json.loads((Path(folder) / CONFIG).read_text()))
    load_safetensors(network, str(Path(folder) / WEIGHTS))
    return network.eval()
