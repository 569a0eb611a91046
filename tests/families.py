"""One tiny model with random weights of every image-text family, for tests over all of them."""

from dataclasses import replace

import torch
from torch import nn
from transformers import SiglipConfig, SiglipModel

from crossguard.models import PixelRule, SigLIP, TwoTowers
from fusion_models import make_albef, make_blip
from shared import make_clip, word_tokenizer

SIDE = 16
RULE = PixelRule((SIDE, SIDE), (0.5,) * 3, (0.5,) * 3, crop=False)


def make_siglip(*, side=SIDE, width=16, layers=1, heads=2, fresh_scales=False):
    """`fresh_scales` leaves biases, norms and the temperature as a fresh model has them."""
    tokenizer = word_tokenizer()
    sizes = {"hidden_size": width, "intermediate_size": 2 * width}
    sizes |= {"num_hidden_layers": layers, "num_attention_heads": heads}
    config = SiglipConfig(
        text_config=sizes | {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": width},
        vision_config=sizes | {"image_size": side, "patch_size": 8},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SiglipModel(config)
        for parameter in network.parameters():  # fresh weights give nearly equal embeddings
            if parameter.ndim > 1 or not fresh_scales:
                parameter.data = torch.randn_like(parameter) * 0.2
    rule = replace(RULE, size=(side, side))
    return SigLIP(network, tokenizer, pixel_rule=rule, name="siglip").eval()


class _MeanWord(nn.Module):
    def __init__(self, words, dim):
        super().__init__()
        self.words = nn.Embedding(words, dim)

    def forward(self, ids, mask):
        weights = mask.float().unsqueeze(2)
        return (self.words(ids) * weights).sum(dim=1) / weights.sum(dim=1)


def make_wrapped():
    tokenizer = word_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 16, 12))
        text = _MeanWord(len(tokenizer), 12)
    return TwoTowers(
        image, text, tokenizer=tokenizer, pixel_rule=RULE, context_length=16, name="wrapped", temperature=0.1
    ).eval()


FAMILIES = {
    "clip": lambda folder: make_clip(),
    "siglip": lambda folder: make_siglip(),
    "blip": make_blip,
    "albef": make_albef,
    "wrapped": lambda folder: make_wrapped(),
}
"""From a family's name to what makes its model, given an empty folder for files."""
FUSION = ("blip", "albef")
