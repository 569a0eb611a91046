"""Gradients of a text score to the token embeddings: what first-order text attacks and checks of masking look at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from crossguard.models import Tokens, VisionLanguageModel

ScoreOfEmbeddings = Callable[[Float[Tensor, "texts dim"]], Float[Tensor, " texts"]]


@dataclass(frozen=True)
class TokenGradients:
    """Gradients at some texts.

    Args:
        tokens: the texts as the model reads them.
        scores: float [texts], without gradient.
        gradient: float [texts, length, width], of every text's own score to its token embeddings; zero on padding.
    """

    tokens: Tokens
    scores: Float[Tensor, " texts"]
    gradient: Float[Tensor, "texts length width"]


def token_gradients(model: VisionLanguageModel, texts: Sequence[str], score: ScoreOfEmbeddings) -> TokenGradients:
    """Return the gradient of a score of text embeddings to the token embeddings.

    Args:
        model: the victim; weights may be frozen.
        texts: the texts.
        score: from the text embeddings of the model to one value per text, each of its own text alone.

    Raises:
        ValueError: a model without token embeddings to look into (see `embedding_layer`).
    """
    tokens = model.tokenize(texts).to(model.logit_scale.device)
    seen: list[Tensor] = []

    def watch(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_(True)
        seen.append(leaf)
        return leaf.clone()  # BLIP adds positions to it in place

    handle = embedding_layer(model).register_forward_hook(watch)
    try:
        with torch.enable_grad():
            scores = score(model.encode_text(tokens).float())
            gradient = _gradient(scores, seen)
    finally:
        handle.remove()
    mask = tokens.mask.to(gradient.device)[..., None]
    gradient = gradient[:, : mask.shape[1]]  # SigLIP pads its tokens to the context length
    return TokenGradients(tokens, scores.detach(), gradient.masked_fill(~mask, 0.0))


def _gradient(scores: Float[Tensor, " texts"], seen: list[Tensor]) -> Float[Tensor, "texts length width"]:
    if len(seen) != 1:
        raise ValueError(f"Expected `encode_text` to look its tokens up once, but it did {len(seen)} times.")
    if not scores.requires_grad:
        return torch.zeros_like(seen[0])
    (gradient,) = torch.autograd.grad(scores.sum(), seen[0], allow_unused=True)
    return torch.zeros_like(seen[0]) if gradient is None else gradient


def embedding_layer(model: VisionLanguageModel) -> nn.Module:
    """Return the module that turns a model's tokens into embeddings.

    Raises:
        ValueError: the model has no `tokenizer`, or no Transformers `network` with token embeddings.
    """
    network = getattr(model, "network", None)
    for owner in (getattr(network, "text_model", None), getattr(network, "text_encoder", None), network):
        if isinstance(owner, PreTrainedModel) and hasattr(model, "tokenizer"):
            layer = owner.get_input_embeddings()
            weight = getattr(layer, "weight", None)
            if isinstance(layer, nn.Module) and isinstance(weight, Tensor) and weight.ndim == 2:
                return layer
    raise ValueError(
        f"Expected a model with a `tokenizer` and a Transformers `network`, to look into its token embeddings, but "
        f"{type(model).__name__} has none."
    )
