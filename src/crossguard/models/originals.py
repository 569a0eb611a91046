"""Reading checkpoints as their authors released them: PyTorch files with keys and shapes of the authors' code."""

import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import interpolate

TRAINING_STATE = (
    r"(visual_encoder|text_encoder|vision_proj|text_proj)_m\.",  # momentum copies
    r"(image_queue|text_queue|idx_queue|queue_ptr|ptr_queue)$",
)
"""What the released checkpoints of ALBEF and BLIP hold for training alone, as patterns of keys."""

State = Mapping[str, Shaped[Tensor, "..."]]


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Read the tensors of a `.pth` file: a bare state dict, or a dict that holds it as `model` or `state_dict`.

    Nothing is unpickled but tensors and plain values.

    Raises:
        ValueError: no such file, a web page, a broken file, or one that holds something else than tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"Expected a checkpoint file at {path}, but there is none.")
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(f"Expected a PyTorch checkpoint in {path}, but it is a web page: the download went wrong.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"Expected a PyTorch checkpoint of plain tensors in {path}, but it could not be read: {reason}"
        ) from error
    if isinstance(loaded, Mapping):
        for wrapper in ("model", "state_dict"):
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
    return {str(key): value for key, value in loaded.items()}


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
