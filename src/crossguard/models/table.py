"""The table of model families, and `load_model` for a name, a hub id or a folder."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from crossguard.checks import WrongKind, expanded, nearest, shown, visible
from crossguard.models.albef import ALBEF
from crossguard.models.blip import BLIP
from crossguard.models.blip_captioner import BlipCaptioner
from crossguard.models.chinese_clip import ChineseCLIP
from crossguard.models.clip import CLIP
from crossguard.models.clip_resnet import MODEL_TYPE as CLIP_RESNET
from crossguard.models.clip_resnet import ResNetCLIP
from crossguard.models.emotion_net import EmotionNet
from crossguard.models.hub import is_hub_id, local_folder
from crossguard.models.llava import Llava
from crossguard.models.open_clip import CONFIG as OPEN_CLIP_CONFIG
from crossguard.models.open_clip import load_open_clip, load_openai
from crossguard.models.partial import adapter_base, is_adapter, with_adapters, with_parts
from crossguard.models.pixels import PixelRule
from crossguard.models.plain_torch import plain_torch
from crossguard.models.qwen_vl import QwenVL
from crossguard.models.road_net import RoadNet
from crossguard.models.siglip import SigLIP
from crossguard.models.storage import CONFIG, NAME, told_name
from crossguard.models.supplied import Supplied
from crossguard.models.tokenizers import check_vocabulary
from crossguard.models.torchscript import is_torchscript
from crossguard.models.watch_net import WatchNet
from crossguard.table import Table


@dataclass(frozen=True)
class ModelRow:
    """One model family or shipped checkpoint.

    Args:
        name: its name in recipes and for `load_model`.
        summary: one line for listings.
        kind: the protocol it meets.
        load: takes a source (folder or hub id; None where the package carries the checkpoint) and `name`, `offline`;
            and `supplied` where parts that its files lack can come from elsewhere.
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
            "CLIP and MetaCLIP 2, any folder or hub id of Transformers' layout",
            "vision-language",
            CLIP.from_pretrained,
            ("clip", "metaclip_2"),
        ),
        ModelRow(
            "chinese-clip",
            "Chinese-CLIP, any folder or hub id of Transformers' layout",
            "vision-language",
            ChineseCLIP.from_pretrained,
            ("chinese_clip",),
        ),
        ModelRow(
            "siglip",
            "SigLIP and SigLIP 2 (naflex too), any folder or hub id of Transformers' layout",
            "vision-language",
            SigLIP.from_pretrained,
            ("siglip", "siglip2"),
        ),
        ModelRow(
            "open-clip",
            "CLIP in open_clip's files (FARE and TeCoA too), a folder or hub id",
            "vision-language",
            load_open_clip,
            ("open_clip",),
        ),
        ModelRow(
            "clip-resnet",
            "CLIP with a ResNet, a folder that `save_pretrained` wrote; released through `open-clip` or OpenAI's `.pt`",
            "vision-language",
            ResNetCLIP.from_pretrained,
            (CLIP_RESNET,),
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
            "llava",
            "LLaVA-1.5, which writes and answers, any folder or hub id of Transformers' layout",
            "captioner",
            Llava.from_pretrained,
            ("llava",),
        ),
        ModelRow(
            "qwen-vl",
            "Qwen2.5-VL, which writes and answers, any folder or hub id of Transformers' layout",
            "captioner",
            QwenVL.from_pretrained,
            ("qwen2_5_vl",),
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
def load_model(
    source: Path | str,
    *,
    base: Any = None,
    tokenizer: PreTrainedTokenizerBase | Path | str | None = None,
    preprocessing: PixelRule | Path | str | None = None,
    device: torch.device | str | None = None,
    offline: bool = False,
) -> Any:
    """Load a model by a shipped name, from a local folder or file, or from a hub id.

    Weights may be safetensors or pickles of PyTorch, whole or in shards; pickles are read with `weights_only`, and no
    code of a file is run.

    Args:
        source: a name of the table whose weights ship ("emoji-clip"), a folder that `save_pretrained`, Transformers,
            open_clip or PEFT wrote, a file of weights, or a hub id ("openai/clip-vit-base-patch16").
        base: the model it was made from, loaded or as a source of its own, which has what the files lack:
            the other tower, the tokenizer, the preprocessing.
        tokenizer: in the place of the checkpoint's: a tokenizer, a folder or hub id, or "clip" for OpenAI's.
        preprocessing: in the place of the checkpoint's: a `PixelRule`, a folder or hub id, or "clip" for OpenAI's.
        device: where the weights go; None: the CPU.
        offline: never ask a hub.

    Returns:
        The model in evaluation mode.

    Raises:
        ValueError: an unknown name, a folder without a readable config, a broken checkpoint, a part that neither the
            files nor the options have (said with the option that supplies it), a tokenizer of another vocabulary.
    """
    source = expanded(source) if str(source).startswith("~") else source
    name = str(source)
    if isinstance(base, Path | str):
        base = load_model(base, offline=offline)
    supplied = Supplied(base, tokenizer, preprocessing, offline)
    if name in MODELS and MODELS[name].ships:
        if supplied:
            raise ValueError(f"Expected no `base`, `tokenizer` or `preprocessing` with {name!r}, which is whole.")
        return MODELS[name].load().to(device or "cpu").eval()
    if Path(source).is_file():
        return _from_file(Path(source), supplied).to(device or "cpu").eval()
    if not Path(source).is_dir() and not is_hub_id(name):
        shipped = [row.name for row in MODELS.values() if row.ships]
        raise ValueError(
            f"Expected a shipped model, a folder, a file or a hub id, but got {name!r}: {nearest(name, shipped)}; "
            "a folder must exist, and a hub id looks like 'owner/name'."
        )
    folder = local_folder(source, offline=offline)
    told = folder.resolve().name if Path(source).is_dir() else name.rpartition("/")[2]
    return _from_folder(folder.resolve(), told, supplied).to(device or "cpu").eval()


def _from_file(path: Path, supplied: Supplied) -> Any:
    """Return the model of a file of weights: OpenAI's archive by itself, others on a base."""
    if supplied.base is None:
        if is_torchscript(path):
            return load_openai(path, supplied=supplied)
        raise ValueError(
            f"Expected `base=` with {visible(path)}, weights that do not say of what model: give the model it was "
            "made from (a folder, a hub id, or a loaded model)."
        )
    return _renewed(with_parts(supplied.base, path), path.stem, path.parent / path.stem, supplied)


def _from_folder(folder: Path, name: str, supplied: Supplied) -> Any:
    if is_adapter(folder):
        base = supplied.base or adapter_base(folder)
        if base is None:
            raise ValueError(f"Expected `base=`, the model that the adapters in {visible(folder)} were trained on.")
        if isinstance(base, str):
            base = load_model(base, offline=supplied.offline)
        return _renewed(with_adapters(base, folder), name, folder, supplied)
    if supplied.base is not None and (_is_tower(folder) or not has_config(folder)):
        return _renewed(with_parts(supplied.base, folder), name, folder, supplied)
    row = row_of(folder)
    options: dict[str, Any] = {"offline": True}
    if "name" in signature(row.load).parameters and name != folder.name:
        options["name"] = told_name(folder) if (folder / NAME).is_file() else name
    if supplied:
        if "supplied" not in signature(row.load).parameters:
            raise ValueError(
                f"Expected no `base`, `tokenizer` or `preprocessing` for {row.name}, whose folder has all."
            )
        options["supplied"] = supplied
    try:
        return row.load(folder, **options)
    except WrongKind:
        raise
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"Expected a whole {row.name} checkpoint in {folder}, but it could not be read: {error}"
        ) from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise ValueError(f"Expected whole safetensors in {folder}, but the file is broken: {error}") from error
        if supplied.base is not None and isinstance(error, ValueError) and "missing_keys" in str(error):
            return _renewed(with_parts(supplied.base, folder), name, folder, supplied)
        if row.name not in MODELS.built_in or isinstance(error, ValueError | ImportError):
            raise
        # Damaged configs and tokenizers make libraries raise anything.
        raise ValueError(
            f"Expected a whole {row.name} checkpoint in {folder}, but it could not be read: "
            f"{type(error).__name__}: {error}"
        ) from error


def _renewed(model: Any, name: str, folder: Path, supplied: Supplied) -> Any:
    """Return a model made on a base under its own name, with the tokenizer and pixel rule that the caller gives."""
    model.name = name
    if supplied.tokenizer is not None:
        model.tokenizer = supplied.tokenizer_for(folder)
        check_vocabulary(model.tokenizer, size=model.network.text_model.config.vocab_size, end=None, where=folder)
    if supplied.preprocessing is not None:
        model.set_pixel_rule(supplied.pixel_rule_for(folder, size=model.image_size[0]))
    return model


def has_config(folder: Path) -> bool:
    """Return whether a folder says what model it holds."""
    return any((folder / name).is_file() for name in (CONFIG, OPEN_CLIP_CONFIG))


def _is_tower(folder: Path) -> bool:
    """Return whether Transformers saved one tower alone in a folder."""
    if not (folder / CONFIG).is_file():
        return False
    return str(_read_config(folder)["model_type"]).endswith(("_vision_model", "_text_model"))


def row_of(folder: Path | str) -> ModelRow:
    """Return the row of the model that a folder holds, by its `config.json`; its weights are not read.

    Raises:
        ValueError: no readable `config.json`, or one of a kind that no row has.
    """
    return _recognise(_read_config(Path(folder)), folder)


def _read_config(folder: Path) -> Mapping[str, Any]:
    if (folder / OPEN_CLIP_CONFIG).is_file() and not (folder / CONFIG).is_file():
        return {"model_type": "open_clip"}
    try:
        config = json.loads((folder / CONFIG).read_text())
        config["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if (folder / OPEN_CLIP_CONFIG).is_file():  # a config.json of another tool beside open_clip's
            return {"model_type": "open_clip"}
        raise ValueError(
            f"Expected a config.json with a `model_type` (or open_clip's {OPEN_CLIP_CONFIG}) in {visible(folder)}, but "
            f"got: {error!r}. For weights alone give `base=`, the model it was made from."
        ) from error
    found: Mapping[str, Any] = config
    return found


def _recognise(config: Mapping[str, Any], source: Path | str) -> ModelRow:
    by_type: dict[str, list[ModelRow]] = {}
    for row in MODELS.values():
        for model_type in row.model_types:
            by_type.setdefault(model_type, []).append(row)
    model_type = str(config.get("model_type"))
    if model_type.endswith(("_vision_model", "_text_model")):
        raise ValueError(
            f"Expected `base=` for {source}, which holds one tower alone ({shown(model_type)}): give the model it was "
            "made from."
        )
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
