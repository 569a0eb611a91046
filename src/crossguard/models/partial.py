"""Checkpoints that hold a part of a model: a tower alone, or adapters; the rest comes from a base."""

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from crossguard.checks import WrongKind, some, visible
from crossguard.extras import install
from crossguard.models.open_clip import rename_open_clip
from crossguard.models.originals import choose_weights, read_weights, without

ADAPTER_CONFIG = "adapter_config.json"
POSITIONS = (r".*position_ids$",)
"""Older files hold positions 0, 1, 2, ... as a buffer."""


def with_parts(base: Any, place: Path) -> Any:
    """Return a copy of a model with the parts that a file or folder holds: its towers, projections and scales.

    Args:
        base: a two-tower model of this package, such as `CLIP` or `SigLIP`.
        place: a file of weights or a folder with one, in the layout of Transformers or of open_clip.

    Raises:
        WrongKind: the base has no network whose parts have names.
        ValueError: weights of other parts than the base's, of another shape, or a part that is not whole.
    """
    network = _network(base)
    wanted = dict(network.state_dict())
    state = _renamed(read_weights(place), wanted)
    strangers = sorted(set(state) - set(wanted))
    resized = [key for key in sorted(set(state) & set(wanted)) if state[key].shape != wanted[key].shape]
    where = f"{visible(place)} on the base {base.name!r}"
    if strangers or not state:
        raise ValueError(
            f"Expected weights of the base's own parts in {where}, but {len(strangers)} are none ({some(strangers)}): "
            "give the model it was made from as `base=`."
        )
    if resized:
        key = resized[0]
        raise ValueError(
            f"Expected weights of the base's own sizes in {where}, but {len(resized)} differ: {key} has shape "
            f"{list(state[key].shape)} instead of {list(wanted[key].shape)}."
        )
    given = {_part(key) for key in state}
    torn = sorted(
        key for key in set(wanted) - set(state) if _part(key) in given and not key.endswith("batches_tracked")
    )
    if torn:
        raise ValueError(f"Expected whole parts in {where}, but {len(torn)} weights are missing: {some(torn)}.")
    made = copy.deepcopy(base)
    made.network.load_state_dict(state, strict=False)
    return made.eval()


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds adapters of PEFT rather than a model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def adapter_base(folder: Path) -> str | None:
    """Return the model that adapters say they were trained on; None where they do not."""
    try:
        told = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"Expected PEFT's {ADAPTER_CONFIG} in {visible(folder)}, but got: {error!r}") from error
    return told if isinstance(told, str) and told else None


def with_adapters(base: Any, folder: Path) -> Any:
    """Return a copy of a model with the adapters of a folder merged into its weights.

    Raises:
        ValueError: no weights, or adapters of another network; PEFT is not installed.
    """
    try:
        from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    except ImportError as error:
        raise ValueError(f"Expected PEFT for a folder of adapters: {install('lora')}") from error
    made = copy.deepcopy(base)
    network = _network(made)
    state = read_weights(folder / choose_weights((entry.name for entry in folder.iterdir()), where=folder))
    try:
        config = PeftConfig.from_pretrained(str(folder))
        with warnings.catch_warnings():  # PEFT asks for what Transformers renames
            warnings.simplefilter("ignore", FutureWarning)
            adapted: Any = get_peft_model(network, config)
        result = set_peft_model_state_dict(adapted, state)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"Expected adapters of {base.name!r} in {visible(folder)}, but got: {error}") from error
    lost = [key for key in result.missing_keys if "lora_" in key]
    if result.unexpected_keys or lost:
        raise ValueError(
            f"Expected adapters of {base.name!r} in {visible(folder)}, but {len(result.unexpected_keys)} are of other "
            f"layers ({some(result.unexpected_keys)}) and {len(lost)} are missing: give the model they were trained "
            "on as `base=`."
        )
    made.network = adapted.merge_and_unload().requires_grad_(True)  # PEFT leaves the base frozen
    return made.eval()


def _network(base: Any) -> Any:
    if not hasattr(base, "network"):
        raise WrongKind(
            f"Expected a model of this package as `base`, such as CLIP or SigLIP, but got {type(base).__name__}."
        )
    return base.network


def _renamed(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state in the names of the wanted one: Transformers' towers by themselves, or open_clip's keys."""
    if any(key in state for key in ("visual.proj", "proj", "class_embedding", "token_embedding.weight")) or any(
        key.startswith(("visual.", "layer1.", "attnpool.", "transformer.resblocks.")) for key in state
    ):
        return rename_open_clip(state)
    named = without(state, POSITIONS)
    if not any(_part(key) in {_part(own) for own in wanted} for key in named):  # a tower that Transformers saved alone
        for tower in ("vision_model", "text_model"):
            if any(f"{tower}.{key}" in wanted for key in named):
                named = {f"{tower}.{key}": value for key, value in named.items()}
                break
    return {key: value.float() if value.is_floating_point() else value for key, value in named.items()}


def _part(key: str) -> str:
    return key.partition(".")[0]
