"""What a model must offer: small protocols that attacks, training, evaluation and certificates rely on.

Models are `torch.nn.Module`s. Pixels enter in [0, 1] and are normalised inside, so that no attack can forget it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from PIL.Image import Image
from torch import Tensor, nn


@dataclass(frozen=True)
class Tokens:
    """A tokenised batch, padded to its longest text.

    Args:
        ids: int64 [texts, length] token ids.
        mask: bool [texts, length], False on padding.
    """

    ids: Int64[Tensor, "texts length"]
    mask: Bool[Tensor, "texts length"]

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Tokens":
        """Return the tokens on `device`."""
        return Tokens(self.ids.to(device), self.mask.to(device))


@runtime_checkable
class VisionLanguageModel(Protocol):
    """Two towers into one embedding space; similarity is the cosine (see `models.cosine`).

    Subclass `torch.nn.Module` and add what follows.

    Attributes:
        name: shown in tables and written into rows.
        image_size: (height, width) of the pixels that `preprocess` gives and `encode_image` takes.
        context_length: the most tokens of a text; longer ones are cut.
        mask_token: the word that stands for "nothing here" when a text attack hides a word.
    """

    name: str
    image_size: tuple[int, int]
    context_length: int
    mask_token: str

    def preprocess(self, images: Sequence[Image]) -> Float[Tensor, "images 3 height width"]:
        """Resize and crop to float32 [images, 3, height, width] in [0, 1] on the CPU; values are whole 1/255."""
        ...

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Tokenise, pad to the longest text of the batch, cut at `context_length`; on the CPU."""
        ...

    def encode_image(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images dim"]:
        """Embed pixels in [0, 1]; differentiable; not normalised to unit length."""
        ...

    def encode_text(self, texts: Sequence[str] | Tokens) -> Float[Tensor, "texts dim"]:
        """Embed texts or tokens; not normalised to unit length."""
        ...

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """Factor that turns cosines into logits (the inverse temperature, > 0)."""
        ...

    def tower(self, which: str) -> Iterable[nn.Parameter]:
        """Parameters of the "image" or the "text" tower, its projection included; `logit_scale` is in neither."""
        ...

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config, tokenizer and safetensors to a folder that `load_model` reads back bit-equal."""
        ...


@runtime_checkable
class MultiModalClassifier(Protocol):
    """One label from several modalities.

    Attributes:
        name: shown in tables and written into rows.
        modalities: the names of the inputs, in order.
        classes: the names of the labels.
    """

    name: str
    modalities: tuple[str, ...]
    classes: tuple[str, ...]

    def __call__(
        self,
        inputs: Mapping[str, Float[Tensor, "samples ..."]],
        kept: Mapping[str, Bool[Tensor, "samples elements"]] | None = None,
    ) -> Float[Tensor, "samples labels"]:
        """Return logits. `kept` marks, per modality, the elements that were not ablated; None means all of them.

        The values of ablated elements must not change the answer.
        """
        ...


def cosine(
    images: Float[Tensor, "images dim"], texts: Float[Tensor, "texts dim"]
) -> Float[Tensor, "images texts"]:
    """Return the cosine similarity of every image with every text, in [-1, 1]."""
    return nn.functional.normalize(images, dim=-1) @ nn.functional.normalize(texts, dim=-1).T
