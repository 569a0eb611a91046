"""ALBEF's BERT (Devlin et al., 2019), cut in two: text layers, then fusion layers that also look at the image.

Parameter names are those of the released checkpoints.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from crossguard.models.albef.config import AlbefConfig

EPS = 1e-12


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, summed and normalised."""

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.text_width, padding_idx=0)
        self.position_embeddings = nn.Embedding(config.positions, config.text_width)
        self.token_type_embeddings = nn.Embedding(config.token_types, config.text_width)
        self.LayerNorm = nn.LayerNorm(config.text_width, eps=EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Int64[Tensor, "texts tokens"]) -> Float[Tensor, "texts tokens width"]:
        """Embed token ids."""
        places = self.position_embeddings.weight[: ids.shape[1]]
        summed = self.word_embeddings(ids) + self.token_type_embeddings.weight[0] + places
        out: Tensor = self.dropout(self.LayerNorm(summed))
        return out


class Projections(nn.Module):
    """Queries from one sequence, keys and values from another."""

    def __init__(self, config: AlbefConfig, context_width: int) -> None:
        super().__init__()
        self.heads, self.drop = config.text_heads, config.dropout
        self.query = nn.Linear(config.text_width, config.text_width)
        self.key = nn.Linear(context_width, config.text_width)
        self.value = nn.Linear(context_width, config.text_width)

    def forward(
        self,
        tokens: Float[Tensor, "samples tokens width"],
        context: Float[Tensor, "contexts places channels"],
        mask: Bool[Tensor, "contexts places"],
        *,
        rows: Int64[Tensor, " samples"] | None,
        with_weights: bool,
    ) -> tuple[Float[Tensor, "samples tokens width"], Float[Tensor, "samples heads tokens places"] | None]:
        """Attend to the places in `mask`.

        `rows` says which context belongs to each sample, None: one each. Keys and values are computed once per context.
        The weights are given on demand, for then they must be written out.
        """
        query, key, value = (
            layer(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, source in ((self.query, tokens), (self.key, context), (self.value, context))
        )
        if rows is not None:
            key, value, mask = key[rows], value[rows], mask[rows]
        seen, weights = mask[:, None, None, :], None
        if with_weights:
            scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            weights = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(dim=-1)
            mixed = nn.functional.dropout(weights, self.drop, self.training) @ value
        else:
            drop = self.drop if self.training else 0.0
            mixed = scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=drop)
        return mixed.transpose(1, 2).flatten(2), weights


class AddAndNormalise(nn.Module):
    """A linear layer, added to what came before and normalised."""

    def __init__(self, config: AlbefConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.text_width)
        self.LayerNorm = nn.LayerNorm(config.text_width, eps=EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, change: Float[Tensor, "samples tokens hidden"], before: Float[Tensor, "samples tokens width"]
    ) -> Float[Tensor, "samples tokens width"]:
        """Add the transformed change."""
        out: Tensor = self.LayerNorm(self.dropout(self.dense(change)) + before)
        return out


class Attention(nn.Module):
    """Attention of BERT: to the text itself, or to the image."""

    def __init__(self, config: AlbefConfig, context_width: int) -> None:
        super().__init__()
        self.self = Projections(config, context_width)
        self.output = AddAndNormalise(config, config.text_width)

    def forward(
        self,
        tokens: Float[Tensor, "samples tokens width"],
        context: Float[Tensor, "contexts places channels"],
        mask: Bool[Tensor, "contexts places"],
        *,
        rows: Int64[Tensor, " samples"] | None = None,
        with_weights: bool = False,
    ) -> tuple[Float[Tensor, "samples tokens width"], Float[Tensor, "samples heads tokens places"] | None]:
        """Return the new states, and the weights on demand."""
        mixed, weights = self.self(tokens, context, mask, rows=rows, with_weights=with_weights)
        return self.output(mixed, tokens), weights


class Intermediate(nn.Module):
    """The widening half of BERT's MLP."""

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.text_width, config.text_mlp)

    def forward(self, tokens: Float[Tensor, "samples tokens width"]) -> Float[Tensor, "samples tokens hidden"]:
        """Transform each token."""
        return gelu(self.dense(tokens))


class Layer(nn.Module):
    """One layer of BERT, with or without cross-attention."""

    def __init__(self, config: AlbefConfig, *, sees_image: bool) -> None:
        super().__init__()
        self.attention = Attention(config, config.text_width)
        if sees_image:
            self.crossattention = Attention(config, config.vision_width)
        self.intermediate = Intermediate(config)
        self.output = AddAndNormalise(config, config.text_mlp)

    def forward(
        self, tokens: Float[Tensor, "samples tokens width"], mask: Bool[Tensor, "samples tokens"]
    ) -> Float[Tensor, "samples tokens width"]:
        """Read the text alone."""
        tokens, _ = self.attention(tokens, tokens, mask)
        out: Tensor = self.output(self.intermediate(tokens), tokens)
        return out

    def fuse(
        self,
        tokens: Float[Tensor, "samples tokens width"],
        mask: Bool[Tensor, "samples tokens"],
        image: Float[Tensor, "images places channels"],
        image_mask: Bool[Tensor, "images places"],
        *,
        rows: Int64[Tensor, " samples"],
        with_weights: bool,
    ) -> tuple[Float[Tensor, "samples tokens width"], Float[Tensor, "samples heads tokens places"] | None]:
        """Read the text, then the image; `rows` says which image belongs to each sample."""
        tokens, _ = self.attention(tokens, tokens, mask)
        tokens, weights = self.crossattention(tokens, image, image_mask, rows=rows, with_weights=with_weights)
        return self.output(self.intermediate(tokens), tokens), weights


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            Layer(config, sees_image=number >= config.fusion_start) for number in range(config.text_layers)
        )


class TextAndFusion(nn.Module):
    """BERT in ALBEF's two modes."""

    def __init__(self, config: AlbefConfig) -> None:
        super().__init__()
        self.fusion_start = config.fusion_start
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(
        self, ids: Int64[Tensor, "texts tokens"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts tokens width"]:
        """Mode "text": the layers below `fusion_start`."""
        tokens: Tensor = self.embeddings(ids)
        for layer in self.encoder.layer[: self.fusion_start]:
            tokens = layer(tokens, mask)
        return tokens

    def fuse(
        self,
        tokens: Float[Tensor, "pairs tokens width"],
        mask: Bool[Tensor, "pairs tokens"],
        image: Float[Tensor, "images places channels"],
        image_mask: Bool[Tensor, "images places"],
        *,
        rows: Int64[Tensor, " pairs"],
        weights_of: int | None = None,
    ) -> tuple[Float[Tensor, "pairs tokens width"], Float[Tensor, "pairs heads tokens places"] | None]:
        """Mode "fusion": the layers from `fusion_start` on, from the text layers' states.

        Args:
            tokens: of mode "text".
            mask: real tokens.
            image: states of the ViT.
            image_mask: real places of the image.
            rows: which image belongs to each pair.
            weights_of: number of the layer, among all of BERT's, whose attention to the image is wanted too.
        """
        weights = None
        for number, layer in enumerate(self.encoder.layer[self.fusion_start :], start=self.fusion_start):
            wanted = number == weights_of
            assert isinstance(layer, Layer)
            tokens, found = layer.fuse(tokens, mask, image, image_mask, rows=rows, with_weights=wanted)
            weights = found if wanted else weights
        return tokens, weights
