"""The released ALBEF checkpoints: which keys they have, and the sizes that can be read from them."""

import re
from pathlib import Path

import torch
from torch import Tensor

from crossguard.models.albef.config import AlbefConfig
from crossguard.models.albef.network import AlbefNetwork
from crossguard.models.originals import (
    TRAINING_STATE,
    State,
    check_shapes,
    read_checkpoint,
    require,
    resize_positions,
    without,
)

FAMILY = "ALBEF (retrieval, grounding or pre-training)"
KNOWN_BY = (
    "visual_encoder.pos_embed",
    "visual_encoder.patch_embed.proj.weight",
    "text_encoder.embeddings.word_embeddings.weight",
    "vision_proj.weight",
    "text_proj.weight",
    "itm_head.weight",
    "temp",
)
IGNORED = (
    *TRAINING_STATE,
    r"text_encoder\.embeddings\.position_ids$",
    r"text_encoder\.cls\.",  # head of masked language modelling
)


def read_released(
    path: Path | str,
    *,
    image_size: int | None = None,
    vision_heads: int | None = None,
    text_heads: int | None = None,
) -> AlbefNetwork:
    """Build a network from a released checkpoint.

    Args:
        path: the `.pth` file: a dict with `model`, or a bare state dict.
        image_size: edge of the pictures in pixels; positions are interpolated (bicubic). None: the checkpoint's own.
        vision_heads: attention heads of the ViT; None: one per 64 channels, as released.
        text_heads: the same for BERT.

    Raises:
        ValueError: not a readable checkpoint, another family, or any key that is missing or unknown.
    """
    state = {key.replace("text_encoder.bert.", "text_encoder."): v for key, v in read_checkpoint(path).items()}
    require(state, KNOWN_BY, family=FAMILY)
    state = without(state, IGNORED)
    config = _sizes(state, image_size=image_size, vision_heads=vision_heads, text_heads=text_heads)
    state["visual_encoder.pos_embed"] = resize_positions(
        state["visual_encoder.pos_embed"], rows=config.grid, columns=config.grid
    )
    with torch.random.fork_rng():  # the drawn weights are all replaced
        network = AlbefNetwork(config)
    check_shapes(state, network.state_dict(), family=FAMILY)
    network.load_state_dict(state)
    return network.float()


def _sizes(state: State, *, image_size: int | None, vision_heads: int | None, text_heads: int | None) -> AlbefConfig:
    layers = _numbers(state, r"text_encoder\.encoder\.layer\.(\d+)\.")
    fusion = _numbers(state, r"text_encoder\.encoder\.layer\.(\d+)\.crossattention\.")
    blocks = _numbers(state, r"visual_encoder\.blocks\.(\d+)\.")
    if not fusion or not blocks or min(fusion) == 0:
        raise ValueError(
            f"Expected a checkpoint of {FAMILY}, with text layers below fusion layers, but cross-attention is in "
            f"layers {fusion or 'none'} of {len(layers)}; BLIP has it in all."
        )
    words, places = (
        _matrix(state, f"text_encoder.embeddings.{which}_embeddings.weight") for which in ("word", "position")
    )
    patch = state["visual_encoder.patch_embed.proj.weight"]
    side = round((state["visual_encoder.pos_embed"].shape[1] - 1) ** 0.5)
    vision_width, text_width = patch.shape[0], words.shape[1]
    return AlbefConfig(
        image_size=image_size or side * patch.shape[-1],
        patch_size=patch.shape[-1],
        vision_width=vision_width,
        vision_layers=len(blocks),
        vision_heads=vision_heads or vision_width // 64,
        vision_mlp=len(_matrix(state, "visual_encoder.blocks.0.mlp.fc1.weight")),
        vocab_size=len(words),
        positions=len(places),
        token_types=len(_matrix(state, "text_encoder.embeddings.token_type_embeddings.weight")),
        text_width=text_width,
        text_layers=len(layers),
        text_heads=text_heads or text_width // 64,
        text_mlp=len(_matrix(state, "text_encoder.encoder.layer.0.intermediate.dense.weight")),
        fusion_start=min(fusion),
        embed_dim=len(state["vision_proj.weight"]),
    )


def _matrix(state: State, key: str) -> Tensor:
    require(state, [key], family=FAMILY)
    return state[key]


def _numbers(state: State, pattern: str) -> list[int]:
    return sorted({int(found[1]) for key in state if (found := re.match(pattern, key))})
