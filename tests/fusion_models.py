"""Tiny fusion models with random weights, for tests."""

import torch

from crossguard.models import BLIP, BlipCaptioner
from crossguard.models.albef import ALBEF, AlbefConfig
from fusion_reference import fill, text_shapes, vision_shapes, write_vocabulary


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


def released_blip(vocabulary_size, *, captioner=False):
    """All keys of a released BLIP checkpoint (retrieval or captioning) at tiny size, random."""
    main = vision_shapes(32, 2, 8, 3)
    if captioner:
        main |= text_shapes(24, 2, (0, 1), vocabulary_size + 2, 48, 32, prefix="text_decoder.bert.", kinds=None)
        head = "text_decoder.cls.predictions."
        main |= {f"{head}transform.dense.weight": (24, 24), f"{head}transform.dense.bias": (24,)}
        main |= {f"{head}transform.LayerNorm.weight": (24,), f"{head}transform.LayerNorm.bias": (24,)}
        main |= {f"{head}bias": (vocabulary_size + 2,)}
        state = fill(main, seed=3)
        state["text_decoder.bert.embeddings.word_embeddings.weight"] *= 6  # decided answers
        state[f"{head}decoder.weight"] = state["text_decoder.bert.embeddings.word_embeddings.weight"]
        state[f"{head}decoder.bias"] = state[f"{head}bias"]
        state["text_decoder.bert.embeddings.position_ids"] = torch.arange(48).unsqueeze(0)
        return state
    main |= text_shapes(24, 2, (0, 1), vocabulary_size + 2, 48, 32, kinds=None)
    main |= {"vision_proj.weight": (8, 32), "vision_proj.bias": (8,), "text_proj.weight": (8, 24)}
    main |= {"text_proj.bias": (8,)}
    copies = {key.replace(".", "_m.", 1): shape for key, shape in main.items()}
    shapes = main | copies | {"itm_head.weight": (2, 24), "itm_head.bias": (2,)}
    state = fill(shapes | {"image_queue": (8, 64), "text_queue": (8, 64)}, seed=2)
    state |= {"temp": torch.tensor(0.06), "ptr_queue": torch.zeros(1, dtype=torch.int64)}
    state |= {"idx_queue": torch.full((1, 64), -100), "queue_ptr": torch.zeros(1, dtype=torch.int64)}
    state["text_encoder.embeddings.position_ids"] = torch.arange(48).unsqueeze(0)
    return state


def make_blip(folder, **sizes):
    folder.mkdir(parents=True, exist_ok=True)
    count = len(write_vocabulary(folder / "vocab.txt"))
    torch.save({"model": released_blip(count)}, folder / "blip.pth")
    heads = {"vision_heads": 4, "text_heads": 2}
    return BLIP.from_released(folder / "blip.pth", vocabulary=folder / "vocab.txt", **heads, **sizes)


def make_captioner(folder):
    folder.mkdir(parents=True, exist_ok=True)
    count = len(write_vocabulary(folder / "vocab.txt"))
    torch.save({"model": released_blip(count, captioner=True)}, folder / "captioner.pth")
    return BlipCaptioner.from_released(
        folder / "captioner.pth", vocabulary=folder / "vocab.txt", vision_heads=4, text_heads=2
    )
