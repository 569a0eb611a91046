"""Checkpoints of a training: weights and moments as safetensors, the position as JSON; whole or not there.

Batches, noise and learning rate are functions of (seed, step), so nothing else has to be kept, but what a training says
it carries along: averages, a momentum copy, perturbations, the state of generators.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from crossguard.runs import as_read_back, atomic_folder, differences, write_json

_CARRIED = "carried.safetensors"


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    step: int,
    settings: Mapping[str, Any],
    carried: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint in place of the one before.

    Args:
        folder: of the checkpoint.
        model: the model in training.
        optimiser: its optimiser.
        step: steps done.
        settings: what decides the outcome, as JSON values; a later `load_checkpoint` must bring the same.
        carried: other tensors that the training goes on from.
    """
    moments = {
        f"{index}.{key}": value
        for index, state in optimiser.state_dict()["state"].items()
        for key, value in state.items()
    }
    with atomic_folder(folder) as temporary:
        save_model(model, str(temporary / "model.safetensors"))
        save_file(moments, temporary / "optimizer.safetensors")
        if carried:
            save_file({name: t.detach().cpu().clone() for name, t in carried.items()}, temporary / _CARRIED)
        write_json(temporary / "position.json", {"step": step, "settings": dict(settings)})


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    settings: Mapping[str, Any],
    carried: Mapping[str, Tensor] | None = None,
) -> int:
    """Take up the checkpoint of a folder, if there is one.

    Args:
        folder: of the checkpoint.
        model: gets the weights.
        optimiser: gets the moments.
        settings: of the training that goes on.
        carried: get what was carried along, in place.

    Returns:
        Steps done; 0 where there is no checkpoint.

    Raises:
        ValueError: the checkpoint belongs to other settings (each difference is named) or another architecture, or is
            broken.
    """
    if not folder.is_dir():
        return 0
    try:
        position = json.loads((folder / "position.json").read_text(encoding="utf-8"))
        step, there = int(position["step"]), dict(position["settings"])
        moments = load_file(folder / "optimizer.safetensors")
        others = load_file(folder / _CARRIED) if carried else {}
    except Exception as error:  # safetensors raises a class of its own that has no public name
        raise ValueError(f"Expected a whole checkpoint in {folder}, but it could not be read: {error}") from error
    found = differences(there, as_read_back(settings))
    if found:
        raise ValueError(
            f"Expected the checkpoint in {folder} to be of this training, but {'; '.join(found)}. "
            "Choose another run folder, or the same settings to go on."
        )
    _load_weights(folder, model)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in moments.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    with torch.no_grad():
        for name, tensor in (carried or {}).items():
            if name not in others or others[name].shape != tensor.shape:
                raise ValueError(f"Expected {name!r} of shape {tuple(tensor.shape)} in {folder}, but it is not there.")
            tensor.copy_(others[name])
    return step


def save_best(folder: Path, model: nn.Module, *, step: int, measured: Mapping[str, float]) -> None:
    """Write the weights of the best step so far in place of an earlier one.

    Args:
        folder: of the best weights.
        model: the model in training.
        step: steps done.
        measured: what validation said.
    """
    with atomic_folder(folder) as temporary:
        save_model(model, str(temporary / "model.safetensors"))
        write_json(temporary / "position.json", {"step": step, "measured": dict(measured)})


def read_best(folder: Path) -> tuple[int, dict[str, float]] | None:
    """Return the step of the best weights and what was measured; None where there are none.

    Raises:
        ValueError: they are broken.
    """
    if not folder.is_dir():
        return None
    try:
        position = json.loads((folder / "position.json").read_text(encoding="utf-8"))
        return int(position["step"]), {str(k): float(v) for k, v in position["measured"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"Expected the best weights in {folder}, but they could not be read: {error}") from error


def load_best(folder: Path, model: nn.Module) -> None:
    """Give a model the best weights.

    Raises:
        ValueError: another architecture, or a broken file.
    """
    _load_weights(folder, model)


def _load_weights(folder: Path, model: nn.Module) -> None:
    try:
        load_model(model, folder / "model.safetensors")
    except Exception as error:
        raise ValueError(
            f"Expected a checkpoint of this architecture in {folder}, but its weights do not fit: {error}"
        ) from error
