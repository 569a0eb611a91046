"""A tiny CLIP with random weights and drawn pictures, for any test to build."""

import copy
import json
from functools import cache

from PIL import Image, ImageDraw

from crossguard.models import CLIP

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("disc", "square", "cross")
PLACES = ("left", "right")
WORDS = (
    *COLOURS,
    *SHAPES,
    *PLACES,
    *["a", "an", "small", "large", "picture", "drawing", "of", "shape", "with", "the", "on", "side", "bright", "plain"],
)


def word_tokenizer(words=WORDS):
    """A word-level tokenizer in Transformers' format."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "[MASK]"]
    vocab = {word: i for i, word in enumerate([*special, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", vocab["[BOS]"]), ("[EOS]", vocab["[EOS]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        mask_token="[MASK]",
    )


def make_clip(seed: int = 0) -> CLIP:
    """A CLIP of a few thousand weights, 16 x 16 pixels."""
    return copy.deepcopy(_clip(seed))  # in half the time that making it takes


@cache
def _clip(seed: int) -> CLIP:
    return CLIP.from_sizes(
        word_tokenizer(),
        image_size=16,
        patch_size=8,
        vision_width=32,
        vision_layers=2,
        text_width=32,
        text_layers=2,
        context_length=16,
        embed_dim=16,
        seed=seed,
        name="tiny",
    )


def draw(colour: str, shape: str, place: str) -> Image.Image:
    image = Image.new("RGB", (24, 24), "white")
    canvas = ImageDraw.Draw(image)
    x = 2 if place == "left" else 9
    if shape == "disc":
        canvas.ellipse((x, 5, x + 13, 18), fill=colour)
    elif shape == "square":
        canvas.rectangle((x, 5, x + 13, 18), fill=colour)
    else:
        canvas.line((x, 5, x + 13, 18), fill=colour, width=4)
        canvas.line((x, 18, x + 13, 5), fill=colour, width=4)
    return image


def write_annotations(pairs, file):
    """Write pairs as the field's annotation file; return the settings of a recipe's data that read them."""
    rows = [
        {"image": picture.path.name, "caption": [pairs.texts[j] for j in pairs.texts_of(i)]}
        for i, picture in enumerate(pairs.images)
    ]
    file.write_text(json.dumps(rows))
    options = {"annotations": str(file), "root": str(pairs.images[0].path.parent)}
    return {"name": "json", "split": "test", "options": options}


def fit_clip(pairs, *, seed: int = 0, ridge: float = 0.1) -> CLIP:
    """A tiny CLIP that knows pairs, so that an attack has something to break: its images' projection is fitted."""
    import torch

    model = make_clip(seed).requires_grad_(False)
    vision = model.network.vision_model
    pixels = model.preprocess([pairs.image(i) for i in range(len(pairs.images))])
    seen = vision(pixel_values=model.normalise(pixels)).pooler_output
    texts = torch.nn.functional.normalize(model.encode_text(list(pairs.texts)), dim=-1)
    texts = texts - texts.mean(dim=0)
    own = torch.stack([texts[pairs.texts_of(i).tolist()].mean(dim=0) for i in range(len(pairs.images))])
    own = torch.nn.functional.normalize(own, dim=-1)
    gram = seen.T @ seen + ridge * torch.eye(seen.shape[1])
    model.network.visual_projection.weight.copy_(torch.linalg.solve(gram, seen.T @ own).T)
    return model
