"""Tiny fusion models with random weights, for tests."""

import torch
from fusion_reference import write_vocabulary

from crossguard.models.albef import ALBEF, AlbefConfig


def make_albef(folder, seed=0, **sizes):
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    count = len(write_vocabulary(vocabulary))
    config = AlbefConfig(
        **(
            {
                "image_size": 16,
                "patch_size": 8,
                "vision_width": 16,
                "vision_layers": 1,
                "vision_heads": 2,
                "vision_mlp": 32,
                "vocab_size": count,
                "positions": 32,
                "text_width": 16,
                "text_layers": 2,
                "text_heads": 2,
                "text_mlp": 32,
                "fusion_start": 1,
                "embed_dim": 8,
                "dropout": 0.0,
            }
            | sizes
        )
    )
    model = ALBEF.from_config(config, vocabulary=vocabulary, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # larger weights than a fresh model's, so that answers differ visibly
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model
