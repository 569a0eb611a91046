"""Saving and loading models: a folder is whole or not there."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model as load_safetensors
from safetensors.torch import save_model as save_safetensors
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from crossguard.checks import expanded, shown, visible
from crossguard.models.hub import local_folder
from crossguard.models.originals import choose_weights, read_weights
from crossguard.runs import atomic_folder

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
NAME = "crossguard.json"
"""What a model is called: its folder's name says where it lies, not what it is."""
DESIGN = "design.json"
"""A published design of sub-samples that a certified model answers by, see `crossguard.certify`."""

_LARGEST = 2**20
"""The largest size that a network of this package's own has."""

Network = TypeVar("Network", bound=nn.Module)
Pretrained = TypeVar("Pretrained", bound=PreTrainedModel)


_FILES = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|(generation_|preprocessor_|tokenizer_)?config\.json"
    r"|(tokenizer|special_tokens_map|added_tokens|vocab|design|crossguard)\.json|(vocab|merges)\.txt|spiece\.model|chat_template\.jinja"
)
"""Names of the files that networks, tokenizers and pixel rules write."""


def write_model(folder: Path | str, parts: Iterable[Callable[[Path], Any]], *, name: str | None = None) -> None:
    """Let every part write itself into one new folder, which then takes the place of `folder`.

    Args:
        folder: where.
        parts: each is given the folder to write into.
        name: what the model is called; `told_name` reads it back.

    Raises:
        ValueError: `folder` is a file, or holds other things than a model's files; they would be lost.
    """
    folder = expanded(folder)
    _refuse_strangers(folder)
    with atomic_folder(folder) as temporary:
        for write in parts:
            write(temporary)
        if name is not None:
            (temporary / NAME).write_text(json.dumps({"name": name}) + "\n", encoding="utf-8")


def told_name(source: Path | str) -> str:
    """Return what a model of a folder or hub id is called: what was saved with it, else the source's last part."""
    try:
        name = json.loads((Path(source) / NAME).read_text(encoding="utf-8"))["name"]
        if isinstance(name, str) and name.strip():
            return visible(name)[:200]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return Path(source).name


def model_files(folder: Path | str) -> list[Path]:
    """Return the files of a folder that models are read from, by name: weights of any kind among them."""
    entries = (path for path in Path(folder).iterdir() if path.is_file())
    return sorted(
        path for path in entries if _FILES.fullmatch(path.name) or path.suffix in (".safetensors", ".bin", ".pt")
    )


def _refuse_strangers(folder: Path) -> None:
    if folder.is_file():
        raise ValueError(f"Expected a folder for the model, but {folder} is a file.")
    entries = list(folder.iterdir()) if folder.exists() else []
    strangers = sorted(entry.name for entry in entries if entry.is_dir() or not _FILES.fullmatch(entry.name))
    if strangers:
        raise ValueError(
            f"Expected a new or empty folder, or a model's, but {folder} holds {len(strangers)} other entries: "
            f"{', '.join(strangers[:3])}{', ...' if len(strangers) > 3 else ''}."
        )


def save_weights(module: nn.Module, folder: Path | str, *, model_type: str, name: str) -> None:
    """Write a module's weights, shared ones once, to `model.safetensors` in a folder; whole or not at all.

    Beside them, `config.json` says the type by which `load_model` finds what makes such a model.

    Raises:
        ValueError: as `write_model`.
    """
    config = json.dumps({"model_type": model_type}) + "\n"
    write_model(
        folder,
        (
            lambda place: (place / CONFIG).write_text(config, encoding="utf-8"),
            lambda place: save_safetensors(module, str(place / WEIGHTS)),
        ),
        name=name,
    )


def load_weights(module: nn.Module, folder: Path | str) -> None:
    """Read what `save_weights` wrote into a module of the same make.

    Raises:
        ValueError: no whole file, or weights that are missing, unknown or of another shape.
    """
    try:
        load_safetensors(module, str(expanded(folder) / WEIGHTS), strict=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"Expected the weights of this very model in {folder}, but they could not be read: {error}"
        ) from error


def save_network(module: nn.Module, config: Mapping[str, Any], folder: Path | str) -> None:
    """Write `config.json` and `model.safetensors` to a folder that `load_network` reads back bit-equal.

    Raises:
        ValueError: as `write_model`.
    """
    write_model(folder, network_parts(module, config))


def network_parts(module: nn.Module, config: Mapping[str, Any]) -> tuple[Callable[[Path], Any], ...]:
    """Return what writes `config.json` and `model.safetensors` into a folder, for `write_model`."""
    return (
        lambda place: (place / CONFIG).write_text(json.dumps(config, indent=2) + "\n"),
        lambda place: save_safetensors(module, str(place / WEIGHTS)),
    )


def load_network(make: Callable[[dict[str, Any]], Network], folder: Path | str) -> Network:
    """Make a network from the `config.json` of a folder and give it the weights beside it; in evaluation mode.

    Raises:
        OSError, KeyError, RuntimeError, SafetensorError: a file is missing or broken; `load_model` says so in words.
    """
    config = json.loads((Path(folder) / CONFIG).read_text())
    _check_sizes(config)
    network = make(config)
    load_safetensors(network, str(Path(folder) / WEIGHTS))
    return network.eval()


def _check_sizes(config: Any) -> None:
    """Refuse sizes that no network has, before room for it is asked for.

    Raises:
        ValueError: a whole number above `_LARGEST`.
    """
    if isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            _check_sizes(value)
    elif isinstance(config, int) and abs(config) > _LARGEST:
        raise ValueError(f"Expected sizes of a network up to {_LARGEST:,} in its config.json, but got {shown(config)}.")


def load_transformers(
    kind: type[Pretrained], source: Path | str, *, offline: bool, family: str, dtype: torch.dtype = torch.float32
) -> Pretrained:
    """Load a network of Transformers from a local folder or a hub id, every weight of it, in float32.

    Checkpoints are often stored in half precision; gradients of attacks would drown in its rounding. Weights may lie in
    any file that `choose_weights` finds; pickles are read with `weights_only`.

    Args:
        kind: its class.
        source: the folder or hub id.
        offline: look only at local files.
        family: what the network is called in messages.
        dtype: of the weights; less than float32 for what is too large for it.

    Raises:
        ValueError: weights that are missing, unknown, or of another shape.
    """
    folder = local_folder(source, offline=offline)
    weights = choose_weights((entry.name for entry in folder.iterdir()), where=folder)
    usual = weights in ("model.safetensors", "model.safetensors.index.json")
    options: dict[str, Any] = {"use_safetensors": True} if usual else {"state_dict": read_weights(folder / weights)}
    if not usual:
        options["config"] = kind.config_class.from_pretrained(str(folder), local_files_only=True)
    told = logging.get_verbosity()
    logging.set_verbosity_error()  # what does not fit is refused below, in a sentence and with harmless names
    try:
        loaded: Any = kind.from_pretrained(
            str(folder) if usual else None,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=dtype,
            **options,
        )
    finally:
        logging.set_verbosity(told)
    network: Pretrained = loaded[0]
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # Older files hold positions 0, 1, 2, ... as a buffer.
        found = sorted(str(key) for key in loaded[1][problem] if not str(key).endswith("position_ids"))
        if found:
            raise ValueError(
                f"Expected a whole {family} checkpoint in {source}, but got {problem}: {found[:5]}. Where it holds one "
                "tower alone, give `base=` (the model it was made from)."
            )
    return network
