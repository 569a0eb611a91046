"""What the encoders make of a step's images and texts, cut into chunks that fit, as leaves of a graph or with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from crossguard.models import FusionModel, States, Tokens, VisionLanguageModel
from crossguard.world import World

View = Literal["clean", "adversarial"]
Tower = Literal["image", "text"]


@dataclass(frozen=True)
class Codes:
    """Encoded images or texts.

    Args:
        embedding: float32 [samples, dim], not of unit length.
        hidden: float [samples, tokens, width], what `match` reads; None where nothing is matched.
        mask: bool [samples, tokens], False on padding; None as `hidden`.
    """

    embedding: Float[Tensor, "samples dim"]
    hidden: Float[Tensor, "samples tokens width"] | None = None
    mask: Bool[Tensor, "samples tokens"] | None = None

    def __len__(self) -> int:
        return len(self.embedding)

    @property
    def states(self) -> States:
        """As `FusionModel.match` takes them.

        Raises:
            ValueError: they were encoded for comparing alone.
        """
        if self.hidden is None or self.mask is None:
            raise ValueError("Expected codes with token states, but these are embeddings alone.")
        return States(self.hidden, self.mask, self.embedding)

    @property
    def differentiable(self) -> list[Tensor]:
        """The tensors that gradients flow through."""
        return [self.embedding] if self.hidden is None else [self.embedding, self.hidden]

    def leaf(self) -> "Codes":
        """Return the codes cut off from the graph, asking for gradients of their own."""
        hidden = None if self.hidden is None else self.hidden.detach().requires_grad_(True)
        return Codes(self.embedding.detach().requires_grad_(True), hidden, self.mask)


def encode_pixels(model: VisionLanguageModel, pixels: Float[Tensor, "images 3 height width"], *, deep: bool) -> Codes:
    """Encode images; `deep` keeps the token states, which takes a `FusionModel`."""
    if deep:
        fusion: FusionModel = model  # type: ignore[assignment]
        states = fusion.encode_image_states(pixels)
        return Codes(states.embedding.float(), states.hidden, states.mask)
    return Codes(model.encode_image(pixels).float())


def encode_tokens(model: VisionLanguageModel, tokens: Tokens, *, deep: bool) -> Codes:
    """Encode texts; `deep` as in `encode_pixels`."""
    if deep:
        fusion: FusionModel = model  # type: ignore[assignment]
        states = fusion.encode_text_states(tokens)
        return Codes(states.embedding.float(), states.hidden, states.mask)
    return Codes(model.encode_text(tokens).float())


def chunks(size: int, chunk_size: int | None) -> list[slice]:
    """Return consecutive slices of at most `chunk_size` rows; None is all at once, and no rows are no slices."""
    step = chunk_size or max(1, size)
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


@torch.no_grad()
def encode_all(encode: Callable[[slice], Codes], *, total: int, chunk_size: int | None, world: World) -> Codes:
    """Encode this process's rows chunk by chunk and return everyone's, without a graph.

    Args:
        encode: codes of a slice of this process's rows; called for an empty slice where it has none.
        total: rows of all processes.
        chunk_size: the most rows at once.
        world: the processes.
    """
    own = world.share(total)
    parts = [encode(rows) for rows in chunks(own.stop - own.start, chunk_size)] or [encode(slice(0, 0))]
    mine = _concatenate(parts)
    return Codes(
        world.gather(mine.embedding, total),
        None if mine.hidden is None else world.gather(mine.hidden, total),
        None if mine.mask is None else world.gather(mine.mask, total),
    )


def gradients_of(codes: Codes, rows: slice) -> list[Tensor]:
    """Return the gradients of leaf codes for some rows, in the order of `differentiable`; zeros where there is none."""
    return [
        torch.zeros_like(tensor[rows]) if tensor.grad is None else tensor.grad[rows] for tensor in codes.differentiable
    ]


def _concatenate(parts: Sequence[Codes]) -> Codes:
    hidden = [part.hidden for part in parts if part.hidden is not None]
    masks = [part.mask for part in parts if part.mask is not None]
    return Codes(
        torch.cat([part.embedding for part in parts]),
        torch.cat(hidden) if hidden else None,
        torch.cat(masks) if masks else None,
    )
