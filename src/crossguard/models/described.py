"""What a checkpoint is, what it lacks and which option supplies it, told from its files in a second."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    LlavaForConditionalGeneration,
    MetaClip2Model,
    Qwen2_5_VLForConditionalGeneration,
    Siglip2Model,
    SiglipModel,
)

from crossguard.checks import WrongKind, expanded
from crossguard.models.clip_resnet import ResNetCLIPNetwork
from crossguard.models.hub import local_folder
from crossguard.models.open_clip import CLIP_TOKENS, convert_open_clip, is_resnet, read_config, read_settings
from crossguard.models.originals import check_shapes, choose_weights, read_weights, without
from crossguard.models.partial import POSITIONS, adapter_base, is_adapter
from crossguard.models.pixels import PixelRule
from crossguard.models.qwen_vl import read_rule as read_qwen_rule
from crossguard.models.storage import CONFIG
from crossguard.models.supplied import has_pixel_rule
from crossguard.models.table import has_config, load_model, row_of
from crossguard.models.tokenizers import check_vocabulary, has_tokenizer, load_tokenizer
from crossguard.models.torchscript import is_torchscript

_NETWORKS: dict[str, Any] = {
    "clip": CLIPModel,
    "metaclip_2": MetaClip2Model,
    "siglip": SiglipModel,
    "siglip2": Siglip2Model,
}
_WRITERS: dict[str, Any] = {"llava": LlavaForConditionalGeneration, "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration}
_BASE = "what it was made from: base="


@dataclass(frozen=True)
class Description:
    """What there is to say of a checkpoint.

    Args:
        source: where it lies.
        is_a: family, or the part of a model that it holds.
        weights: the file that is read.
        parameters: how many numbers it holds; of a folder without weights, how many its config asks for.
        dtypes: types that they are stored in.
        sizes: what the config says of them.
        tokenizer: kind and size; None where it has none.
        preprocessing: the pixels' size; None where it has no rule.
        problems: what does not fit together.
        lacks: what the files do not have, each with the option of `load_model` that supplies it.
    """

    source: str
    is_a: str
    weights: str | None = None
    parameters: int = 0
    dtypes: tuple[str, ...] = ()
    sizes: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    preprocessing: str | None = None
    problems: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    @property
    def memory(self) -> str:
        """What the weights alone take in memory."""
        return f"{2e-9 * self.parameters:.2f} GB in bfloat16, {4e-9 * self.parameters:.2f} GB in float32"

    @property
    def loads(self) -> bool:
        """Whether `load_model(source)` takes it without further options."""
        return not self.problems and not self.lacks

    def to_dict(self) -> dict[str, Any]:
        """Return the description as JSON values."""
        return {**asdict(self), "memory": self.memory, "loads": self.loads}


def describe(source: Path | str, *, offline: bool = False) -> Description:
    """Return what a checkpoint is and lacks. Two-tower models are told from headers; others are loaded to see.

    Args:
        source: a folder, a file of weights, or a hub id.
        offline: never ask a hub.

    Raises:
        ValueError: no such folder, file or hub id.
    """
    place = expanded(source)
    if not place.is_file():
        place = local_folder(source, offline=offline)
        if not place.is_dir():
            raise ValueError(f"Expected a folder, a file of weights or a hub id, but got {str(source)!r}.")
    found = Description(str(source), "a file of weights")
    problems: list[str] = []

    def attempt(step: Callable[[], Description | None]) -> None:
        nonlocal found
        try:
            found = step() or found
        except (ValueError, OSError, KeyError, RuntimeError, WrongKind) as error:
            problems.append(str(error))

    state: dict[str, Tensor] = {}
    attempt(lambda: _weights(found, place, state))
    if place.is_file():
        attempt(lambda: _file(found, place, state))
    elif is_adapter(place):
        attempt(lambda: _adapter(found, place))
    elif not has_config(place):
        attempt(lambda: replace(found, is_a=_part_of(state), lacks=(*found.lacks, _BASE)))
    else:
        attempt(lambda: _folder(found, place, state))
    return replace(found, problems=(*found.problems, *problems))


def _weights(found: Description, place: Path, state: dict[str, Tensor]) -> Description:
    path = place if place.is_file() else place / choose_weights((file.name for file in place.iterdir()), where=place)
    if path.name.endswith(".index.json"):
        names = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        for name in names:
            state.update(_shapes(path.parent / name))
    else:
        state.update(_shapes(path))
    dtypes = {str(value.dtype).removeprefix("torch.") for value in state.values()}
    count = sum(value.numel() for value in state.values())
    return replace(found, weights=path.name, parameters=count, dtypes=tuple(sorted(dtypes)))


def _shapes(path: Path) -> dict[str, Tensor]:
    """Return tensors without memory of the shapes and types that a file holds."""
    if path.suffix != ".safetensors":
        return {key: value.to("meta") for key, value in read_weights(path).items()}
    try:
        with safe_open(path, framework="pt") as file:
            keys = [(key, file.get_slice(key)) for key in file.keys()]  # noqa: SIM118
            sizes = [(key, part.get_shape(), _DTYPES.get(part.get_dtype(), torch.float32)) for key, part in keys]
    except (OSError, SafetensorError) as error:
        raise ValueError(f"Expected whole safetensors in {path}, but the file is broken: {error}") from error
    return {key: torch.empty(shape, dtype=dtype, device="meta") for key, shape, dtype in sizes}


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
}


def _file(found: Description, path: Path, state: dict[str, Tensor]) -> Description:
    if path.suffix != ".safetensors" and is_torchscript(path):
        return replace(found, is_a=f"OpenAI's CLIP as TorchScript, {'a ResNet' if is_resnet(state) else 'a ViT'}")
    return replace(found, is_a=_part_of(state), lacks=(_BASE,))


def _part_of(state: dict[str, Tensor]) -> str:
    images = any(key.startswith(("visual.", "vision_model.")) for key in state) or "conv1.weight" in state
    texts = any(key.startswith(("text_model.", "token_embedding.")) for key in state)
    whole = {(True, True): "both towers", (True, False): "an image tower", (False, True): "a text tower"}
    return f"weights of {whole.get((images, texts), 'something else')} without a config"


def _adapter(found: Description, folder: Path) -> Description:
    base = adapter_base(folder)
    lacks = (_BASE,) if base is None else ()
    return replace(found, is_a=f"adapters of PEFT, trained on {base or 'a model that they do not name'}", lacks=lacks)


def _folder(found: Description, folder: Path, state: dict[str, Tensor]) -> Description:
    open_clip = not (folder / CONFIG).is_file()
    model_type = "open_clip" if open_clip else str(json.loads((folder / CONFIG).read_text()).get("model_type"))
    if model_type.endswith(("_vision_model", "_text_model")):
        tower = "an image tower" if "vision" in model_type else "a text tower"
        return replace(found, is_a=f"{tower} alone ({model_type})", lacks=(_BASE,))
    row = row_of(folder)
    found = replace(found, is_a=f"{row.name} ({row.kind})")
    if open_clip:
        return _open_clip(found, folder, state)
    if model_type in _WRITERS:
        return _writer(found, folder, state, model_type)
    if model_type not in _NETWORKS:
        load_model(folder, offline=True)
        return found
    kind = _NETWORKS[model_type]
    config = kind.config_class.from_pretrained(str(folder), local_files_only=True)
    with torch.device("meta"):
        wanted = kind(config).state_dict()
    given = without(state, POSITIONS)
    missing = {key.partition(".")[0] for key in set(wanted) - set(given)}
    towers = {"vision_model", "text_model"} & (missing - {key.partition(".")[0] for key in given})
    lacks = [_BASE] if towers else []
    if not towers:
        check_shapes(given, wanted, family=row.name)
    text, vision = config.text_config, config.vision_config
    sizes = {"image_size": getattr(vision, "image_size", None), "patch_size": vision.patch_size}
    sizes |= {"context_length": text.max_position_embeddings, "vocabulary": text.vocab_size}
    end = None if model_type.startswith("siglip") else text.eos_token_id
    end = text.vocab_size - 1 if model_type == "clip" and end == 2 else end
    return _parts(replace(found, sizes=sizes), folder, lacks, vocabulary=text.vocab_size, end=end)


def _writer(found: Description, folder: Path, state: dict[str, Tensor], model_type: str) -> Description:
    """Tell a model that writes from its config, without memory for its weights."""
    kind = _WRITERS[model_type]
    config = kind.config_class.from_pretrained(str(folder), local_files_only=True)
    with torch.device("meta"):
        network = kind(config)
    wanted = sum(p.numel() for p in network.parameters())
    given = sum(v.numel() for key, v in state.items() if not key.endswith((".position_ids", ".inv_freq")))
    text, vision = config.text_config, config.vision_config
    sizes = {"image_size": getattr(vision, "image_size", None), "patch_size": vision.patch_size}
    sizes |= {"context_length": text.max_position_embeddings, "vocabulary": text.vocab_size}
    found = replace(found, sizes=sizes, parameters=wanted)
    if state and given != wanted:
        raise ValueError(f"Expected {wanted:,} numbers, as the config asks for, but {found.weights} has {given:,}.")
    if model_type == "qwen2_5_vl" and has_pixel_rule(folder):
        rule = read_qwen_rule(folder, config)
        found = replace(found, preprocessing=f"{rule.size[0]} x {rule.size[1]}")
    return _parts(found, folder, [], vocabulary=text.vocab_size, end=None)


def _open_clip(found: Description, folder: Path, state: dict[str, Tensor]) -> Description:
    whole = read_settings(folder)
    model = whole.get("model_cfg", whole)
    config: Any = read_config(model, folder)
    with torch.device("meta"):
        network: Any = ResNetCLIPNetwork(config) if isinstance(config, dict) else CLIPModel(config)
    check_shapes(convert_open_clip(state), network.state_dict(), family="open_clip")
    text, vision = network.text_model.config, model["vision_cfg"]
    sizes = {"image_size": vision.get("image_size", 224), "patch_size": vision.get("patch_size")}
    sizes |= {"context_length": text.max_position_embeddings, "vocabulary": text.vocab_size}
    found = replace(found, sizes=sizes, preprocessing=f"{sizes['image_size']} x {sizes['image_size']}")
    return _parts(found, folder, [], vocabulary=text.vocab_size, end=text.eos_token_id)


def _parts(found: Description, folder: Path, lacks: list[str], *, vocabulary: int, end: int | None) -> Description:
    """Add what there is of tokenizer and preprocessing."""
    problems = []
    if has_pixel_rule(folder) and found.preprocessing is None:
        rule = PixelRule.from_pretrained(folder, default_size=found.sizes["image_size"] or 256, offline=True)
        found = replace(found, preprocessing=f"{rule.size[0]} x {rule.size[1]}")
    elif found.preprocessing is None:
        lacks.append("preprocessing: preprocessing= or base=")
    open_clip = found.is_a.startswith("open-clip")
    if has_tokenizer(folder):
        config = CLIPConfig() if open_clip else None
        try:
            tokenizer = load_tokenizer(folder, offline=True, **({"config": config} if config is not None else {}))
            found = replace(found, tokenizer=f"{type(tokenizer).__name__}, {len(tokenizer):,} tokens")
            check_vocabulary(tokenizer, size=vocabulary, end=end, where=folder)
        except ValueError as error:
            problems.append(str(error))
    elif open_clip and vocabulary == CLIP_TOKENS:
        found = replace(found, tokenizer=f"CLIP's own, which comes with crossguard, {CLIP_TOKENS:,} tokens")
    else:
        lacks.append("tokenizer: tokenizer= or base=")
    return replace(found, lacks=tuple(lacks), problems=tuple(problems))
