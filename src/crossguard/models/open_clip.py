"""CLIP checkpoints in open_clip's layout (Ilharco et al., 2021), converted to that of Transformers on loading."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from crossguard.models.clip import CLIP
from crossguard.models.clip_resnet import ResNetCLIP, ResNetCLIPNetwork
from crossguard.models.hub import local_folder
from crossguard.models.originals import State, check_shapes, choose_weights, read_weights, require, without
from crossguard.models.pixels import PixelRule
from crossguard.models.storage import told_name
from crossguard.models.supplied import NOTHING, Supplied
from crossguard.models.tokenizers import check_vocabulary

CONFIG = "open_clip_config.json"
CLIP_TOKENS = 49408
KNOWN = {
    "model_cfg": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"},
    "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
}
IGNORED = (r".*attn_mask$", r"(visual\.)?input_resolution$", r"(context_length|vocab_size)$")
MOVED = (
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"(layers\.\d+)\.ln_([12])\.", r"\1.layer_norm\2."),
    (r"(layers\.\d+)\.mlp\.c_fc\.", r"\1.mlp.fc1."),
    (r"(layers\.\d+)\.mlp\.c_proj\.", r"\1.mlp.fc2."),
    (r"(layers\.\d+)\.attn\.out_proj\.", r"\1.self_attn.out_proj."),
)


def load_open_clip(
    source: Path | str, *, name: str | None = None, offline: bool = True, supplied: Supplied = NOTHING
) -> CLIP | ResNetCLIP:
    """Load a folder as open_clip's hub repositories have it, or a hub id: config, weights, and perhaps a tokenizer.

    Args:
        source: a folder with `open_clip_config.json` and weights. Where it has no tokenizer in Transformers' files, it
            is CLIP's, as in open_clip.
        name: shown in tables; default: the folder's or hub id's last part.
        offline: look only at local files.
        supplied: what the files lack.

    Returns:
        A `CLIP` or `ResNetCLIP`, which saves itself in Transformers' layout or its own.

    Raises:
        ValueError: another architecture than a plain ViT or ResNet with a plain text transformer, weights that are
            missing, unknown or of another shape, a tokenizer of another vocabulary.
    """
    folder = local_folder(source, offline=offline)
    whole = read_settings(folder)
    model = whole.get("model_cfg", whole)
    config = read_config(model, folder)
    state = read_weights(folder / choose_weights((entry.name for entry in folder.iterdir()), where=folder))
    own = _pixel_rule(whole.get("preprocess_cfg", {}), int(model["vision_cfg"].get("image_size", 224)))
    return _build(config, state, folder, supplied, own, name or told_name(source))


def load_openai(path: Path, *, supplied: Supplied = NOTHING, name: str | None = None) -> CLIP | ResNetCLIP:
    """Load a TorchScript archive as OpenAI released CLIP; its sizes are read from the tensors.

    Raises:
        ValueError: an archive of something else.
    """
    state = without(read_weights(path), IGNORED)
    config = read_config(_sizes(state), path)
    size = config["image_size"] if isinstance(config, dict) else config.vision_config.image_size
    rule = PixelRule((size, size), tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD))
    return _build(config, state, path.parent / path.stem, supplied, rule, name or path.stem)


def _build(
    config: CLIPConfig | dict[str, Any],
    state: State,
    folder: Path,
    supplied: Supplied,
    rule: PixelRule,
    name: str,
) -> CLIP | ResNetCLIP:
    resnet = isinstance(config, dict)
    with torch.random.fork_rng():  # the drawn weights are all replaced
        network: Any = ResNetCLIPNetwork(config) if isinstance(config, dict) else CLIPModel(config)
    converted = convert_open_clip(state)
    check_shapes(converted, network.state_dict(), family="open_clip")
    network.load_state_dict(converted)
    text = network.text_model.config
    # open_clip pools at the largest id, which is the end of the text.
    tokenizer = supplied.tokenizer_for(folder, clips=text.vocab_size == CLIP_TOKENS, config=CLIPConfig())
    check_vocabulary(tokenizer, size=text.vocab_size, end=text.eos_token_id, where=folder)
    size = network.config["image_size"] if resnet else network.config.vision_config.image_size
    rule = supplied.pixel_rule_for(folder, size=size, own=rule)
    return (ResNetCLIP if resnet else CLIP)(network, tokenizer, pixel_rule=rule, name=name).eval()


def convert_open_clip(state: State) -> dict[str, Tensor]:
    """Rename open_clip's (and OpenAI's own) keys to those of Transformers; fused projections come apart.

    Args:
        state: with or without the `module.` of several processes.

    Raises:
        ValueError: the keys are of another model.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    own = ("visual.attnpool.c_proj.weight",) if is_resnet(state) else ("visual.proj", "visual.class_embedding")
    require(state, (*own, "text_projection"), family="open_clip (a ViT or ResNet)")
    return rename_open_clip(state)


def rename_open_clip(state: State) -> dict[str, Tensor]:
    """Rename keys as `convert_open_clip` does, of one tower alone too; all values in float32.

    Args:
        state: of both towers, or of `visual` alone, with or without that prefix. A ResNet's keys stay as they are.
    """
    if "conv1.weight" in state:  # the image tower by itself, as RobustVLM's training saves it
        state = {f"visual.{key}": value for key, value in state.items()}
    resnet = is_resnet(state)
    converted: dict[str, Tensor] = {}
    for key, value in without(state, IGNORED).items():
        if key in ("visual.proj", "text_projection"):
            new = "visual_projection.weight" if key == "visual.proj" else "text_projection.weight"
            converted[new] = value.T.contiguous()
            continue
        if not (resnet and key.startswith("visual.")):
            for pattern, replacement in MOVED:
                key = re.sub(pattern, replacement, key)
        fused = re.match(r"(.*layers\.\d+)\.attn\.in_proj_(weight|bias)$", key)
        if fused:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                converted[f"{fused[1]}.self_attn.{part}_proj.{fused[2]}"] = piece.clone()
        else:
            converted[key] = value
    return {key: value.float() if value.is_floating_point() else value for key, value in converted.items()}


def is_resnet(state: State) -> bool:
    """Return whether keys of open_clip are those of a ResNet's image tower."""
    return any(key.startswith(("visual.layer1.", "layer1.")) for key in state)


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what `open_clip_config.json` says, with booleans of any spelling ("TRUE", "false") as booleans.

    Raises:
        ValueError: no such file, or no JSON object.
    """
    try:
        whole = _plain(json.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"Expected open_clip's {CONFIG} in {folder}, but it could not be read: {error}") from error
    model = whole.get("model_cfg", whole) if isinstance(whole, dict) else None
    if not isinstance(model, dict) or not all(
        isinstance(model.get(part, {}), dict) for part in ("vision_cfg", "text_cfg")
    ):
        raise ValueError(f"Expected objects `model_cfg`, `vision_cfg` and `text_cfg` in the {CONFIG} of {folder}.")
    found: dict[str, Any] = whole
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    return value


def _sizes(state: State) -> dict[str, Any]:
    """Return the settings, as open_clip has them, of a CLIP whose tensors are given; OpenAI's activation."""
    require(state, ("visual.conv1.weight", "token_embedding.weight", "text_projection"), family="OpenAI's CLIP")
    blocks = r"{}transformer\.resblocks\.(\d+)\."
    text_width = state["ln_final.weight"].shape[0]
    text = {
        "context_length": state["positional_embedding"].shape[0],
        "vocab_size": state["token_embedding.weight"].shape[0],
        "width": text_width,
        "heads": max(1, text_width // 64),
        "layers": _count(state, "^" + blocks.format("")),
    }
    vision: dict[str, Any] = {"width": state["visual.conv1.weight"].shape[0]}
    if is_resnet(state):
        vision["width"] = state["visual.layer1.0.conv1.weight"].shape[0]
        vision["layers"] = [_count(state, rf"^visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
        places, patch = state["visual.attnpool.positional_embedding"].shape[0] - 1, 32
    else:
        places, patch = state["visual.positional_embedding"].shape[0] - 1, state["visual.conv1.weight"].shape[-1]
        vision |= {"layers": _count(state, "^" + blocks.format(r"visual\.")), "patch_size": patch}
    vision["image_size"] = patch * math.isqrt(places)
    return {
        "embed_dim": state["text_projection"].shape[1],
        "vision_cfg": vision,
        "text_cfg": text,
        "quick_gelu": True,
    }


def _count(state: State, pattern: str) -> int:
    return 1 + max((int(found[1]) for key in state if (found := re.match(pattern, key))), default=-1)


def read_config(model: Mapping[str, Any], folder: Path) -> CLIPConfig | dict[str, Any]:
    """Return the configuration of Transformers' CLIP for open_clip's, or that of `ResNetCLIPNetwork`.

    Raises:
        ValueError: another architecture than a plain ViT or ResNet with a plain text transformer.
    """
    parts = {"model_cfg": model, "vision_cfg": model.get("vision_cfg", {}), "text_cfg": model.get("text_cfg", {})}
    strangers = [
        f"{part}.{key}" for part, given in parts.items() for key, value in given.items()
        if key not in KNOWN[part] and value
    ]  # fmt: skip
    if strangers:
        raise ValueError(
            f"Expected a plain ViT or ResNet and a plain text transformer in {folder}, but its {CONFIG} asks for "
            f"{', '.join(strangers)}."
        )
    vision = {"width": 768, "layers": 12, "patch_size": 16, "image_size": 224, "head_width": 64, "mlp_ratio": 4.0}
    text = {"width": 512, "layers": 12, "heads": 8, "context_length": 77, "vocab_size": 49408, "mlp_ratio": 4.0}
    vision, text = vision | dict(parts["vision_cfg"]), text | dict(parts["text_cfg"])
    activation = "quick_gelu" if model.get("quick_gelu", False) else "gelu"
    text_config = {
        "vocab_size": text["vocab_size"],
        "hidden_size": text["width"],
        "intermediate_size": int(text["width"] * text["mlp_ratio"]),
        "num_hidden_layers": text["layers"],
        "num_attention_heads": text["heads"],
        "max_position_embeddings": text["context_length"],
        "hidden_act": activation,
        # open_clip pools at the largest id, which is the end of the text.
        "bos_token_id": text["vocab_size"] - 2,
        "eos_token_id": text["vocab_size"] - 1,
        "pad_token_id": text["vocab_size"] - 1,
    }
    if isinstance(vision["layers"], list):
        sizes = {"layers": vision["layers"], "width": vision["width"], "image_size": vision["image_size"]}
        return {**sizes, "embed_dim": model["embed_dim"], "text": text_config}
    return CLIPConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=vision["width"],
            intermediate_size=int(vision["width"] * vision["mlp_ratio"]),
            num_hidden_layers=vision["layers"],
            num_attention_heads=vision["width"] // vision["head_width"],
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            hidden_act=activation,
        ).to_dict(),
        text_config=CLIPTextConfig(**text_config).to_dict(),
        projection_dim=model["embed_dim"],
    )


def _pixel_rule(given: Mapping[str, Any], image_size: int) -> PixelRule:
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    mode, interpolation = given.get("resize_mode") or "shortest", given.get("interpolation") or "bicubic"
    if mode not in ("shortest", "squash") or interpolation not in filters:
        raise ValueError(
            f"Expected `resize_mode` shortest or squash and `interpolation` bicubic or bilinear, but got {mode!r} and "
            f"{interpolation!r}."
        )
    return PixelRule(
        (image_size, image_size),
        tuple(given.get("mean") or OPENAI_CLIP_MEAN),
        tuple(given.get("std") or OPENAI_CLIP_STD),
        crop=mode == "shortest",
        resample=int(filters[interpolation]),
    )
