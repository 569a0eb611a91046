"""ALBEF's ViT (Dosovitskiy et al., 2021); parameter names are those of the released checkpoints."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from crossguard.models.albef.config import AlbefConfig
from crossguard.models.patches import keep_tokens

EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, tokens: Float[Tensor, "images tokens width"], mask: Bool[Tensor, "images tokens"] | None
    ) -> Float[Tensor, "images tokens width"]:
        """Attend to the tokens in `mask` (None: all)."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = None if mask is None else mask[:, None, None, :]
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Transform each token."""
        out: Tensor = self.fc2(gelu(self.fc1(tokens)))
        return out


class Block(nn.Module):
    """Attention and an MLP, each normalised before and added."""

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.vision_width, eps=EPS)
        self.attn = Attention(config.vision_width, config.vision_heads)
        self.norm2 = nn.LayerNorm(config.vision_width, eps=EPS)
        self.mlp = Mlp(config.vision_width, config.vision_mlp)

    def forward(
        self, tokens: Float[Tensor, "images tokens width"], mask: Bool[Tensor, "images tokens"] | None
    ) -> Float[Tensor, "images tokens width"]:
        """Transform the tokens."""
        tokens = tokens + self.attn(self.norm1(tokens), mask)
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class PatchEmbedding(nn.Module):
    """A convolution that makes one token of each patch."""

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.vision_width, kernel_size=config.patch_size, stride=config.patch_size)

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images patches channels"]:
        """Return the patches' tokens, row by row."""
        tokens: Tensor = self.proj(pixels)
        return tokens.flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Pixels in, states of the class token and the patches out, normalised."""

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.vision_width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid**2 + 1, config.vision_width))
        self.patch_embed = PatchEmbedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.vision_layers))
        self.norm = nn.LayerNorm(config.vision_width, eps=EPS)

    def forward(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        kept: Bool[Tensor, "images patches"] | None = None,
    ) -> tuple[Float[Tensor, "images tokens channels"], Bool[Tensor, "images tokens"]]:
        """Encode normalised pixels; patches that are not `kept` leave the sequence.

        Returns:
            The states, the class token's first, and which of them are real.
        """
        patches = self.patch_embed(pixels) + self.pos_embed[:, 1:]
        mask = None
        if kept is not None:
            patches, mask = keep_tokens(patches, kept)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(patches), -1, -1)
        tokens = torch.cat([first, patches], dim=1)
        if mask is not None:
            mask = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)
        for block in self.blocks:
            tokens = block(tokens, mask)
        everything = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return self.norm(tokens), everything if mask is None else mask
