"""The table of model families, and `load_model` for a name, a hub id or a folder."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig

from crossguard.checks import WrongKind, nearest, shown
from crossguard.models.albef import ALBEF
from crossguard.models.blip import BLIP
from crossguard.models.blip_captioner import BlipCaptioner
from crossguard.models.clip import CLIP
from crossguard.models.emotion_net import EmotionNet
from crossguard.models.open_clip import CONFIG as OPEN_CLIP_CONFIG
from crossguard.models.open_clip import load_open_clip
from crossguard.models.plain_torch import plain_torch
from crossguard.models.road_net import RoadNet
from crossguard.models.siglip import SigLIP
from crossguard.models.watch_net import WatchNet
from crossguard.table import Table


@dataclass(frozen=True)
class ModelRow:
    """One model family or shipped checkpoint.

    Args:
        name: its name in recipes and for `load_model`.
        summary: one line for listings.
        kind: the protocol it meets.
        load: takes a source (folder or hub id; None where the package carries the checkpoint) and `name`, `offline`.
        model_types: values of `model_type` in `config.json` by which a folder or hub id is recognised.
        architectures: where several rows share a `model_type`, the values in `architectures` that tell them apart.
        ships: the package carries the weights, so the bare name is a model.
        fresh: makes an untrained model for given `MultiModalSamples`, with `seed`; None where training starts from a
            checkpoint.
    """

    name: str
    summary: str
    kind: Literal["vision-language", "captioner", "classifier", "segmenter"]
    load: Callable[..., Any]
    model_types: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    ships: bool = False
    fresh: Callable[..., Any] | None = None


def _emoji_clip(_: object = None, **options: Any) -> CLIP:
    return CLIP.from_pretrained(
        Path(str(files("crossguard.models") / "assets" / "emoji-clip")),
        **{**options, "name": "emoji-clip", "offline": True},
    )


MODELS = Table[ModelRow](
    "model",
    (
        ModelRow(
            "clip",
            "CLIP, any folder or hub id of Transformers' layout",
            "vision-language",
            CLIP.from_pretrained,
            ("clip",),
        ),
        ModelRow(
            "siglip",
            "SigLIP, any folder or hub id of Transformers' layout",
            "vision-language",
            SigLIP.from_pretrained,
            ("siglip",),
        ),
        ModelRow(
            "open-clip",
            "CLIP in open_clip's files, a folder as its hub repositories have it",
            "vision-language",
            load_open_clip,
            ("open_clip",),
        ),
        ModelRow(
            "albef",
            "ALBEF, a folder that `save_pretrained` wrote; released files through `ALBEF.from_released`",
            "vision-language",
            ALBEF.from_pretrained,
            ("albef",),
        ),
        ModelRow(
            "blip",
            "BLIP for retrieval, any folder or hub id of Transformers' layout",
            "vision-language",
            BLIP.from_pretrained,
            ("blip",),
            ("BlipForImageTextRetrieval",),
        ),
        ModelRow(
            "blip-captioner",
            "BLIP that writes captions, any folder or hub id of Transformers' layout",
            "captioner",
            BlipCaptioner.from_pretrained,
            ("blip",),
            ("BlipForConditionalGeneration",),
        ),
        ModelRow(
            "emoji-clip",
            "a small CLIP of emoji, shipped with the package",
            "vision-language",
            _emoji_clip,
            ships=True,
        ),
        ModelRow(
            "watch-net",
            "two-stream classifier of watch sensors",
            "classifier",
            WatchNet.from_pretrained,
            ("watch-net",),
            fresh=WatchNet.for_samples,
        ),
        ModelRow(
            "emotion-net",
            "two-branch classifier of video and sound (frames, MFCC steps, or single features)",
            "classifier",
            EmotionNet.from_pretrained,
            ("emotion-net",),
            fresh=EmotionNet.for_samples,
        ),
        ModelRow(
            "road-net",
            "RoadSeg-style segmenter of RGB and depth or normals, tiny to ResNet-152 encoders",
            "segmenter",
            RoadNet.from_pretrained,
            ("road-net",),
            fresh=RoadNet.for_samples,
        ),
    ),
)


def register_model(
    name: str,
    load: Callable[..., Any],
    *,
    summary: str,
    kind: Literal["vision-language", "captioner", "classifier", "segmenter"] = "vision-language",
    model_types: Sequence[str] = (),
    fresh: Callable[..., Any] | None = None,
) -> None:
    """Add a model of your own to the table, so that recipes, the command line and `load_model` can name it.

    Args:
        name: what it is called.
        load: makes it: without arguments; or, with `model_types`, from a folder or hub id and `offline`.
        summary: one line for `crossguard list models`.
        kind: the protocol it meets.
        model_types: values of `model_type` in `config.json` by which its folders are recognised; none: the bare name
            is the model.
        fresh: makes an untrained one for given samples, see `ModelRow`.

    Raises:
        ValueError: a name of the package's own, or a `model_type` that another row has.
    """
    for row in MODELS.values():
        taken = set(row.model_types) & set(model_types)
        if row.name != name and taken:
            raise ValueError(f"Expected other `model_types` for {name!r}: {row.name!r} has {sorted(taken)}.")
    MODELS.register(
        ModelRow(name, summary, kind, load, tuple(model_types), ships=not model_types and fresh is None, fresh=fresh)
    )


@plain_torch()
def load_model(source: Path | str, *, device: torch.device | str = "cpu", offline: bool = False) -> Any:
    """Load a model by a shipped name, from a local folder, or from a hub id.

    Args:
        source: a name of the table whose weights ship ("emoji-clip"), a folder that `save_pretrained` or
            Transformers wrote, or a hub id ("openai/clip-vit-base-patch16", downloaded by Transformers).
        device: where the weights go.
        offline: never ask a hub.

    Returns:
        The model in evaluation mode.

    Raises:
        ValueError: an unknown name, a folder without a readable `config.json`, a broken checkpoint.
    """
    source = Path(source).expanduser() if str(source).startswith("~") else source
    name = str(source)
    if name in MODELS and MODELS[name].ships:
        return MODELS[name].load().to(device).eval()
    if Path(source).is_dir():
        row, given = row_of(source), Path(source).resolve()
    elif name.count("/") == 1 and not name.startswith((".", "/", "~")):
        row, given = _recognise(_ask_hub(name, offline=offline), source), name  # type: ignore[assignment]
    else:
        shipped = [row.name for row in MODELS.values() if row.ships]
        raise ValueError(
            f"Expected a shipped model, a folder, or a hub id, but got {name!r}: {nearest(name, shipped)}; "
            "a folder must exist, and a hub id looks like 'owner/name'."
        )
    try:
        return row.load(given, offline=offline).to(device).eval()
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"Expected a whole {row.name} checkpoint in {source}, but it could not be read: {error}"
        ) from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise ValueError(f"Expected whole safetensors in {source}, but the file is broken: {error}") from error
        if row.name not in MODELS.built_in or isinstance(error, ValueError | ImportError | WrongKind):
            raise
        # Damaged configs and tokenizers make libraries raise anything.
        raise ValueError(
            f"Expected a whole {row.name} checkpoint in {source}, but it could not be read: "
            f"{type(error).__name__}: {error}"
        ) from error


def row_of(folder: Path | str) -> ModelRow:
    """Return the row of the model that a folder holds, by its `config.json`; its weights are not read.

    Raises:
        ValueError: no readable `config.json`, or one of a kind that no row has.
    """
    return _recognise(_read_config(Path(folder)), folder)


def _read_config(folder: Path) -> Mapping[str, Any]:
    if (folder / OPEN_CLIP_CONFIG).is_file() and not (folder / "config.json").is_file():
        return {"model_type": "open_clip"}
    try:
        config = json.loads((folder / "config.json").read_text())
        config["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"Expected a config.json with a `model_type` in {folder}, but got: {error!r}.") from error
    found: Mapping[str, Any] = config
    return found


def _ask_hub(name: str, *, offline: bool) -> Mapping[str, Any]:
    try:
        config, _ = PreTrainedConfig.get_config_dict(name, local_files_only=offline)
    except OSError as error:
        raise ValueError(
            f"Expected a model's folder or hub id, but there is no folder {name}, and from a hub "
            f"the config of {name!r} could not be had: {error}"
        ) from error
    found: Mapping[str, Any] = config
    return found


def _recognise(config: Mapping[str, Any], source: Path | str) -> ModelRow:
    by_type: dict[str, list[ModelRow]] = {}
    for row in MODELS.values():
        for model_type in row.model_types:
            by_type.setdefault(model_type, []).append(row)
    model_type = str(config.get("model_type"))
    if model_type not in by_type:
        raise ValueError(
            f"Expected one of the model types {', '.join(sorted(by_type))} in {source}, but its config.json says "
            f"{shown(model_type)}. Your own code makes a model of your own: make it as before and call its "
            f"load_pretrained({str(source)!r}), or tell register_model(..., model_types=[{shown(model_type)}]) how and "
            "name that file by --import."
        )
    rows = by_type[model_type]
    named = config.get("architectures") or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ValueError(
            f"Expected a list of names as `architectures` in the config.json of {source}, but got {named!r}."
        )
    for row in rows:
        if not row.architectures or set(row.architectures) & set(named):
            return row
    known = [architecture for row in rows for architecture in row.architectures]
    raise ValueError(f"Expected one of the architectures {known} in {source}, but its config.json names {named}.")
