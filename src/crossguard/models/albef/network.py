"""ALBEF's weights in one module, named as in the released checkpoints."""

import torch
from torch import nn

from crossguard.models.albef.config import AlbefConfig
from crossguard.models.albef.text import TextAndFusion
from crossguard.models.albef.vision import VisionTransformer


class AlbefNetwork(nn.Module):
    """The towers, their projections, the matching head and the temperature.

    Args:
        config: the sizes.

    New weights are drawn from PyTorch's global generator: normal with deviation 0.02, as in BERT and ViT.
    """

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__()
        self.config = config
        self.visual_encoder = VisionTransformer(config)
        self.text_encoder = TextAndFusion(config)
        self.vision_proj = nn.Linear(config.vision_width, config.embed_dim)
        self.text_proj = nn.Linear(config.text_width, config.embed_dim)
        self.itm_head = nn.Linear(config.text_width, 2)
        self.temp = nn.Parameter(torch.tensor(0.07))
        self.apply(_draw)
        for places in (self.visual_encoder.cls_token, self.visual_encoder.pos_embed):
            nn.init.trunc_normal_(places, std=0.02)


def _draw(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
