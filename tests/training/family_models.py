"""One tiny model of every kind that is trained."""

import torch
from torch import nn
from transformers import SiglipConfig, SiglipModel

from crossguard.models import PixelRule, SigLIP, TwoTowers
from fusion_models import make_albef, make_blip, make_captioner
from shared import make_clip, word_tokenizer


def make_siglip(_folder):
    tokenizer = word_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config=sizes | {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 16},
        vision_config=sizes | {"image_size": 16, "patch_size": 8},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SiglipModel(config)
        for parameter in network.parameters():  # fresh weights give nearly equal embeddings
            if parameter.ndim > 1:
                parameter.data = torch.randn_like(parameter) * 0.2
    rule = PixelRule((16, 16), (0.5,) * 3, (0.5,) * 3, crop=False)
    return SigLIP(network, tokenizer, pixel_rule=rule, name="siglip").eval()


class Words(nn.Module):
    """The mean of word vectors."""

    def __init__(self, count, dim):
        super().__init__()
        self.table = nn.Embedding(count, dim)

    def forward(self, ids, mask):
        shown = self.table(ids) * mask[..., None]
        return shown.sum(dim=1) / mask.sum(dim=1, keepdim=True)


def make_wrapped(_folder):
    tokenizer = word_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.GELU(), nn.Flatten(), nn.Linear(128, 12))
        text = Words(len(tokenizer), 12)
    rule = PixelRule((16, 16), (0.5,) * 3, (0.5,) * 3, crop=False)
    return TwoTowers(image, text, tokenizer=tokenizer, pixel_rule=rule, context_length=16, name="wrapped").eval()


FAMILIES = {
    "clip": lambda _folder: make_clip(),
    "siglip": make_siglip,
    "wrapped": make_wrapped,
    "blip": make_blip,
    "albef": make_albef,
    "captioner": make_captioner,
}
