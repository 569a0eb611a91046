"""CLIP checkpoints in open_clip's layout (Ilharco et al., 2021), converted to that of Transformers on loading."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from crossguard.models.clip import CLIP
from crossguard.models.originals import State, check_shapes, read_checkpoint, require, without
from crossguard.models.pixels import PixelRule
from crossguard.models.storage import told_name
from crossguard.models.tokenizers import load_tokenizer

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
KNOWN = {
    "model_cfg": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"},
    "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
}
IGNORED = (r"(attn_mask|input_resolution|context_length|vocab_size)$",)
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


def load_open_clip(source: Path | str, *, name: str | None = None, offline: bool = True) -> CLIP:
    """Load a folder as open_clip's hub repositories have it: config, weights, and the tokenizer in Transformers' files.

    Args:
        source: a folder with `open_clip_config.json`, `open_clip_model.safetensors` or `open_clip_pytorch_model.bin`,
            and a tokenizer (`tokenizer.json`, or `vocab.json` and `merges.txt`).
        name: shown in tables; default: the folder's last part.
        offline: changes nothing; there is no hub to ask.

    Returns:
        A `CLIP`, which saves itself in Transformers' layout.

    Raises:
        ValueError: another architecture than a plain ViT with a plain text transformer, weights that are missing,
            unknown or of another shape, no tokenizer.
    """
    folder = Path(source).expanduser()
    try:
        whole = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected open_clip's {CONFIG} in {folder}, but it could not be read: {error}") from error
    config = _config(whole.get("model_cfg", whole), folder)
    with torch.random.fork_rng():  # the drawn weights are all replaced
        network = CLIPModel(config)
    state = convert_open_clip(_read_weights(folder))
    check_shapes(state, network.state_dict(), family="open_clip")
    network.load_state_dict(state)
    tokenizer = load_tokenizer(folder, offline=True, config=config)
    if tokenizer.eos_token_id != config.text_config.eos_token_id:
        raise ValueError(
            f"Expected a tokenizer that ends texts with id {config.text_config.eos_token_id} in {folder}, but its end "
            f"is {tokenizer.eos_token_id}."
        )
    rule = _pixel_rule(whole.get("preprocess_cfg", {}), config.vision_config.image_size)
    return CLIP(network, tokenizer, pixel_rule=rule, name=name or told_name(folder)).eval()


def convert_open_clip(state: State) -> dict[str, Tensor]:
    """Rename open_clip's (and OpenAI's own) keys to those of Transformers; fused projections come apart.

    Args:
        state: with or without the `module.` of several processes.

    Raises:
        ValueError: the keys are of another model.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    require(state, ("visual.proj", "text_projection", "visual.class_embedding"), family="open_clip (a ViT)")
    converted: dict[str, Tensor] = {}
    for key, value in without(state, IGNORED).items():
        if key in ("visual.proj", "text_projection"):
            new = "visual_projection.weight" if key == "visual.proj" else "text_projection.weight"
            converted[new] = value.T.contiguous()
            continue
        for pattern, replacement in MOVED:
            key = re.sub(pattern, replacement, key)
        fused = re.match(r"(.*layers\.\d+)\.attn\.in_proj_(weight|bias)$", key)
        if fused:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                converted[f"{fused[1]}.self_attn.{part}_proj.{fused[2]}"] = piece.clone()
        else:
            converted[key] = value
    return {key: value.float() for key, value in converted.items()}


def _read_weights(folder: Path) -> State:
    for file in WEIGHTS:
        if (folder / file).is_file():
            return load_file(folder / file) if file.endswith(".safetensors") else read_checkpoint(folder / file)
    raise ValueError(f"Expected {' or '.join(WEIGHTS)} in {folder}, but neither is there.")


def _config(model: Mapping[str, Any], folder: Path) -> CLIPConfig:
    parts = {"model_cfg": model, "vision_cfg": model.get("vision_cfg", {}), "text_cfg": model.get("text_cfg", {})}
    strangers = [
        f"{part}.{key}" for part, given in parts.items() for key, value in given.items()
        if key not in KNOWN[part] and value
    ]  # fmt: skip
    if strangers or isinstance(parts["vision_cfg"].get("layers"), list):
        raise ValueError(
            f"Expected a plain ViT and a plain text transformer in {folder}, but its {CONFIG} asks for "
            f"{', '.join(strangers) or 'a ResNet'}."
        )
    vision = {"width": 768, "layers": 12, "patch_size": 16, "image_size": 224, "head_width": 64, "mlp_ratio": 4.0}
    text = {"width": 512, "layers": 12, "heads": 8, "context_length": 77, "vocab_size": 49408, "mlp_ratio": 4.0}
    vision, text = vision | dict(parts["vision_cfg"]), text | dict(parts["text_cfg"])
    activation = "quick_gelu" if model.get("quick_gelu", False) else "gelu"
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
        text_config=CLIPTextConfig(
            vocab_size=text["vocab_size"],
            hidden_size=text["width"],
            intermediate_size=int(text["width"] * text["mlp_ratio"]),
            num_hidden_layers=text["layers"],
            num_attention_heads=text["heads"],
            max_position_embeddings=text["context_length"],
            hidden_act=activation,
            # open_clip pools at the largest id, which is the end of the text.
            bos_token_id=text["vocab_size"] - 2,
            eos_token_id=text["vocab_size"] - 1,
            pad_token_id=text["vocab_size"] - 1,
        ).to_dict(),
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
