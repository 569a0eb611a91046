"""Reading weights as their authors released them: which file of a folder holds them, and tensors from any such file."""

import json
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate

from crossguard.checks import expanded, some, visible
from crossguard.models.torchscript import is_torchscript, read_torchscript

TRAINING_STATE = (
    r"(visual_encoder|text_encoder|vision_proj|text_proj)_m\.",  # momentum copies
    r"(image_queue|text_queue|idx_queue|queue_ptr|ptr_queue)$",
)
"""What the released checkpoints of ALBEF and BLIP hold for training alone, as patterns of keys."""

State = Mapping[str, Shaped[Tensor, "..."]]

_WRAPPERS = ("model", "state_dict", "model_state_dict", "vision_encoder_state_dict")
"""Under which keys training code keeps the weights beside its own state."""
_PREFIXES = ("module.", "_orig_mod.")
"""What `DataParallel` and `torch.compile` put before every key."""
_USUAL = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
_VARIANT = re.compile(r"(model|open_clip_model)\.\w+\.safetensors|pytorch_model\.\w+\.bin")
_ANY = re.compile(r".+\.(safetensors|bin|pt|pth)")
_NO_WEIGHTS = {"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scheduler.bin", "scaler.pt"}


def choose_weights(names: Iterable[str], *, where: Path | str) -> str:
    """Return which of a folder's files holds the weights.

    The usual names come first (safetensors before pickles), then variants such as `model.fp16.safetensors`, then the
    only file that can hold weights, such as `epoch_30.pt`.

    Args:
        names: the files' names.
        where: the folder, for the message.

    Raises:
        ValueError: none, or several that no convention chooses among.
    """
    here = set(names) - _NO_WEIGHTS
    for name in _USUAL:
        if name in here:
            return name
    for pattern in (_VARIANT, _ANY):
        found = sorted(name for name in here if pattern.fullmatch(name) and not name.startswith("rng_state"))
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(
                f"Expected one file of weights in {visible(where)}, but got {some(found)}: name the file itself in "
                "place of the folder, with `base=`."
            )
    raise ValueError(
        f"Expected weights in {visible(where)}, such as model.safetensors, pytorch_model.bin or "
        "open_clip_model.safetensors, but none is there."
    )


def read_weights(place: Path | str) -> dict[str, Tensor]:
    """Read the tensors of a file, or of the file that a folder has for its weights; shards are joined.

    Args:
        place: `.safetensors`, an index of shards, a pickle of PyTorch, or a folder with one of them.

    Raises:
        ValueError: as `choose_weights` and `read_checkpoint`; a shard that is missing or lies outside the folder.
    """
    path = expanded(place)
    if path.is_dir():
        path = path / choose_weights((entry.name for entry in path.iterdir()), where=path)
    if path.name.endswith(".index.json"):
        return {key: value for shard in _shards(path) for key, value in read_weights(shard).items()}
    if path.suffix != ".safetensors":
        return read_checkpoint(path)
    try:
        return _unwrapped(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"Expected whole safetensors in {visible(path)}, but the file is broken: {error}") from error


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"Expected a `weight_map` of shards in {visible(index)}, but got: {error!r}") from error
    lost = [name for name in names if Path(name).name != name or not (index.parent / name).is_file()]
    if lost:
        raise ValueError(f"Expected the shards that {visible(index)} names beside it, but {some(lost)} are not there.")
    return [index.parent / name for name in names]


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state without what wrappers put before every key."""
    found = dict(state)
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in found):
            found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Read the tensors of a PyTorch file: a bare state dict, one kept as `model` or `state_dict`, or TorchScript's.

    Nothing is unpickled but tensors and plain values, and no code of the file is run.

    Raises:
        ValueError: no such file, a web page, a broken file, or one that holds something else than tensors.
    """
    path = expanded(path)
    if not path.is_file():
        raise ValueError(f"Expected a checkpoint file at {path}, but there is none.")
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(f"Expected a PyTorch checkpoint in {path}, but it is a web page: the download went wrong.")
    if is_torchscript(path):
        return read_torchscript(path)
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"Expected a PyTorch checkpoint of plain tensors in {path}, but it could not be read: {reason}"
        ) from error
    if isinstance(loaded, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(loaded.get(wrapper), Mapping):
                loaded = loaded[wrapper]
                break
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(f"Expected a dict of tensors in {path}, but got {type(loaded).__name__}.")
    strangers = [key for key, value in loaded.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ValueError(
            f"Expected a dict of tensors in {path}, but {strangers[:3]} hold something else; its own keys: "
            f"{list(loaded)[:5]}."
        )
    return _unwrapped({str(key): value for key, value in loaded.items()})


def require(state: State, keys: Iterable[str], *, family: str) -> None:
    """Check that the keys by which a family is known are there.

    Raises:
        ValueError: some are missing, so this is a checkpoint of another family.
    """
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(
            f"Expected a checkpoint of {family}, but it lacks {missing[:3]}; it has, for example, {sorted(state)[:3]}."
        )


def without(state: State, patterns: Sequence[str]) -> dict[str, Tensor]:
    """Return the state without the keys that match one of the patterns from their start."""
    ignored = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    return {key: value for key, value in state.items() if not ignored.match(key)}


def check_shapes(given: State, wanted: State, *, family: str) -> None:
    """Check that a state has exactly the wanted keys with the wanted shapes.

    Raises:
        ValueError: missing or surplus keys, or shapes that differ.
    """
    problems = []
    missing, surplus = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing:
        problems.append(f"{len(missing)} keys are missing ({', '.join(missing[:4])})")
    if surplus:
        problems.append(f"{len(surplus)} keys are unknown ({', '.join(surplus[:4])})")
    problems += [
        f"{key} has shape {list(given[key].shape)} instead of {list(wanted[key].shape)}"
        for key in sorted(set(wanted) & set(given))
        if given[key].shape != wanted[key].shape
    ][:4]
    if problems:
        raise ValueError(f"Expected a whole checkpoint of {family}, but {'; '.join(problems)}.")


def resize_positions(
    positions: Float[Tensor, "1 tokens width"], *, rows: int, columns: int
) -> Float[Tensor, "1 new_tokens width"]:
    """Interpolate a ViT's position embeddings (class token first, then a square grid) to another grid, bicubic.

    Raises:
        ValueError: the given grid is not square.
    """
    grid = positions[:, 1:]
    side = round(grid.shape[1] ** 0.5)
    if side * side != grid.shape[1]:
        raise ValueError(f"Expected positions of a square grid of patches, but got {grid.shape[1]} of them.")
    if (side, side) == (rows, columns):
        return positions
    planes = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = interpolate(planes.float(), size=(rows, columns), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)
