"""BLIP checkpoints as Salesforce released them, converted to Transformers' layout."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval

from crossguard.models.originals import (
    TRAINING_STATE,
    State,
    check_shapes,
    read_checkpoint,
    require,
    resize_positions,
    without,
)

MAX_WORDS = 30
IGNORED = (
    *TRAINING_STATE,
    r"(text_encoder|text_decoder\.bert)\.embeddings\.position_ids$",
)
RENAMED = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (
        r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.",
        r"vision_model.encoder.layers.\1.self_attn.projection.",
    ),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision_model.encoder.layers.\1.mlp."),
)


def read_released_retrieval(
    path: Path | str, *, image_size: int | None, vision_heads: int | None, text_heads: int | None
) -> tuple[BlipForImageTextRetrieval, float]:
    """Return the network and the temperature of a retrieval checkpoint; see `BLIP.from_released`."""
    family = "BLIP retrieval"
    state = read_checkpoint(path)
    require(
        state,
        (
            "visual_encoder.pos_embed",
            "text_encoder.encoder.layer.0.crossattention.self.query.weight",
            "vision_proj.weight",
            "itm_head.weight",
            "temp",
        ),
        family=family,
    )
    state = without(state, IGNORED)
    temperature = float(state.pop("temp"))
    config = _config(state, "text_encoder.", image_size=image_size, heads=(vision_heads, text_heads))
    with torch.random.fork_rng():  # the drawn weights are all replaced
        network = BlipForImageTextRetrieval(config)
    _fill(network, state, config=config, family=family)
    return network, temperature


def read_released_captioner(
    path: Path | str, *, image_size: int | None, vision_heads: int | None, text_heads: int | None
) -> BlipForConditionalGeneration:
    """Return the network of a captioning checkpoint; see `BlipCaptioner.from_released`.

    Raises:
        ValueError: the output layer differs from the word embeddings that it should share.
    """
    family = "BLIP captioning"
    state = read_checkpoint(path)
    words, output = (
        "text_decoder.bert.embeddings.word_embeddings.weight",
        "text_decoder.cls.predictions.decoder.weight",
    )
    require(state, ("visual_encoder.pos_embed", words, output), family=family)
    state = without(state, IGNORED)
    if not torch.equal(state[words], state[output]):
        raise ValueError(f"Expected {output} to be {words} once more in {path}, but they differ.")
    config = _config(state, "text_decoder.bert.", image_size=image_size, heads=(vision_heads, text_heads))
    with torch.random.fork_rng():
        network = BlipForConditionalGeneration(config)
    _fill(network, state, config=config, family=family)
    return network


def _fill(network: torch.nn.Module, state: State, *, config: BlipConfig, family: str) -> None:
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        for pattern, new in RENAMED:
            key = re.sub(pattern, new, key)
        renamed[key] = value
    grid = config.vision_config.image_size // config.vision_config.patch_size
    places = "vision_model.embeddings.position_embedding"
    renamed[places] = resize_positions(renamed[places], rows=grid, columns=grid)
    check_shapes(renamed, network.state_dict(), family=family)
    network.load_state_dict(renamed)
    network.float()


def _config(state: State, text: str, *, image_size: int | None, heads: tuple[int | None, int | None]) -> BlipConfig:
    first = f"{text}encoder.layer.0.intermediate.dense.weight"
    names = {
        "patch": "visual_encoder.patch_embed.proj.weight",
        "mlp": "visual_encoder.blocks.0.mlp.fc1.weight",
        "words": f"{text}embeddings.word_embeddings.weight",
        "places": f"{text}embeddings.position_embeddings.weight",
        "text_mlp": first,
    }
    require(state, names.values(), family="BLIP")
    shapes = {short: state[key].shape for short, key in names.items()}
    width, text_width, vocabulary = shapes["patch"][0], shapes["words"][1], shapes["words"][0]
    side = round((state["visual_encoder.pos_embed"].shape[1] - 1) ** 0.5)
    vision: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": shapes["mlp"][0],
        "num_hidden_layers": _layers(state, r"visual_encoder\.blocks\.(\d+)\."),
        "num_attention_heads": heads[0] or width // 64,
        "image_size": image_size or side * shapes["patch"][-1],
        "patch_size": shapes["patch"][-1],
        "layer_norm_eps": 1e-6,  # Transformers' default is another
    }
    reading: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": text_width,
        "encoder_hidden_size": width,
        "intermediate_size": shapes["text_mlp"][0],
        "num_hidden_layers": _layers(state, re.escape(text) + r"encoder\.layer\.(\d+)\."),
        "num_attention_heads": heads[1] or text_width // 64,  # Transformers' default is another
        "max_position_embeddings": shapes["places"][0],
        "bos_token_id": vocabulary - 2,  # [DEC]; [ENC] follows
        "sep_token_id": None,  # known to the tokenizer, which the adapter asks
    }
    extra = {"image_text_hidden_size": len(state["vision_proj.weight"])} if "vision_proj.weight" in state else {}
    return BlipConfig(vision_config=vision, text_config=reading, **extra)


def _layers(state: State, pattern: str) -> int:
    return len({found[1] for key in state if (found := re.match(pattern, key))})
