"""What a model must offer: small protocols that attacks, training, evaluation and certificates rely on.

Models are `torch.nn.Module`s. Pixels enter in [0, 1] and are normalised inside, so that no attack can forget it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, Shaped
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
class PatchModel(VisionLanguageModel, Protocol):
    """A two-tower model whose image tower can leave out patches, as certificates by sub-sampling need.

    Attributes:
        patch_grid: (rows, columns) of patches; patch `row * columns + column` covers that part of the pixels.
    """

    patch_grid: tuple[int, int]

    def encode_image(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        kept: Bool[Tensor, "images patches"] | None = None,
    ) -> Float[Tensor, "images dim"]:
        """Embed pixels from the patches in `kept` alone (None: all); the others leave the token sequence.

        Their values, NaN included, do not change the answer. Keeping all of them equals the plain forward, and the cost
        falls with the largest number of patches that an image of the batch keeps.
        """
        ...


@runtime_checkable
class PatchEmbeddingModel(VisionLanguageModel, Protocol):
    """A two-tower model that also embeds every patch of an image by itself, where texts are embedded.

    Attributes:
        patch_grid: as of `PatchModel`.
    """

    patch_grid: tuple[int, int]

    def embed_patches(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images patches dim"]:
        """Embed the patches of pixels in [0, 1], row by row: their last states as `encode_image` projects its own."""
        ...


@dataclass(frozen=True)
class States:
    """Encoded images or texts of a fusion model: what `match` reads, and the embedding for the cosine.

    Args:
        hidden: float [samples, tokens, width], one state per token.
        mask: bool [samples, tokens], False on padding.
        embedding: float [samples, dim], as `encode_image` or `encode_text` gives it; not of unit length.
    """

    hidden: Float[Tensor, "samples tokens width"]
    mask: Bool[Tensor, "samples tokens"]
    embedding: Float[Tensor, "samples dim"]

    def __len__(self) -> int:
        return len(self.hidden)

    def select(self, rows: Int64[Tensor, " chosen"]) -> "States":
        """Return the states of the chosen samples, in the order given; a sample may be chosen again."""
        return States(self.hidden[rows], self.mask[rows], self.embedding[rows])

    def to(self, device: torch.device | str) -> "States":
        """Return the states on `device`."""
        return States(self.hidden.to(device), self.mask.to(device), self.embedding.to(device))

    def detach(self) -> "States":
        """Return the states cut off from the graph."""
        return States(self.hidden.detach(), self.mask, self.embedding.detach())


@runtime_checkable
class FusionModel(VisionLanguageModel, Protocol):
    """A two-tower model with a third part that reads an image and a text together and says whether they match.

    Each image and each text is encoded once; any number of pairs is then matched from the states. All of it is
    differentiable, with respect to the pixels too. `tower("fusion")` gives the parameters of the third part.

    Attributes:
        rank_adds_cosine: what retrieval re-ranks by: the match logit alone (ALBEF), or plus the cosine (BLIP).
    """

    rank_adds_cosine: bool

    def encode_image_states(self, pixels: Float[Tensor, "images 3 height width"]) -> States:
        """Encode pixels in [0, 1]; `embedding` equals `encode_image(pixels)`."""
        ...

    def encode_text_states(self, texts: Sequence[str] | Tokens) -> States:
        """Encode texts or tokens; `embedding` equals `encode_text(texts)`."""
        ...

    def match(self, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"]) -> Float[Tensor, "pairs 2"]:
        """Return the two logits (no match, match) of the chosen pairs; their softmax is the probability.

        Args:
            images: of `encode_image_states`.
            texts: of `encode_text_states`.
            pairs: int64 [pairs, 2] of (row in `images`, row in `texts`), as in `PairBatch.links`; at least one.
        """
        ...


@runtime_checkable
class FusedEmbeddingModel(FusionModel, Protocol):
    """A fusion model that shows the embedding from which it tells whether an image and a text match."""

    def fuse(self, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"]) -> Float[Tensor, "pairs width"]:
        """Return the fused embedding of the chosen pairs; `match` is a linear function of it."""
        ...


@runtime_checkable
class GroundingModel(FusionModel, Protocol):
    """A fusion model that shows where in the image it looks for a text (see `models.heatmap`).

    Attributes:
        patch_grid: (rows, columns) of the image's patches; their states follow the class token's, row by row.
    """

    patch_grid: tuple[int, int]

    def match_with_attention(
        self, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"], *, layer: int | None
    ) -> tuple[Float[Tensor, "pairs 2"], Float[Tensor, "pairs heads tokens places"] | None]:
        """As `match`, with the attention of one layer to the image, in the graph; None for no attention.

        Raises:
            ValueError: `layer` is no layer that attends to the image.
        """
        ...


@runtime_checkable
class Captioner(Protocol):
    """A model that writes a caption for an image. Subclass `torch.nn.Module` and add what follows.

    Attributes:
        name: shown in tables and written into rows.
        image_size: (height, width) of the pixels.
        context_length: the most tokens of a caption, the prompt included; longer ones are cut.
        prompt: what every caption is asked to begin with; it is no part of what `generate` returns.
    """

    name: str
    image_size: tuple[int, int]
    context_length: int
    prompt: str

    def preprocess(self, images: Sequence[Image]) -> Float[Tensor, "images 3 height width"]:
        """As `VisionLanguageModel.preprocess`."""
        ...

    def caption_loss(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        captions: Sequence[str],
        *,
        rows: Int64[Tensor, " captions"] | None = None,
    ) -> Float[Tensor, " captions"]:
        """Return each caption's mean cross-entropy per token for its image, in nats; differentiable in the pixels.

        Args:
            pixels: in [0, 1].
            captions: the captions.
            rows: which image each caption belongs to, so that an image with several is encoded once; None: one each.
        """
        ...

    def generate(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        *,
        beams: int = 3,
        min_length: int = 5,
        max_length: int = 20,
    ) -> list[str]:
        """Return one caption per image by beam search; the lengths count tokens, prompt and end included."""
        ...

    def tower(self, which: str) -> Iterable[nn.Parameter]:
        """Parameters of the "image" tower or of the "text" decoder."""
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


@dataclass(frozen=True)
class Packed:
    """The elements of one modality that were kept, packed together, and where each stood.

    Args:
        values: [samples, kept, ...], of the modality's own type, ordered by position; zeros on padding.
        positions: int64 [samples, kept], ascending, in [0, size); 0 on padding.
        size: number of elements before any was dropped.
        real: bool [samples, kept], False on padding; None where all are real, because every sample keeps as many.
    """

    values: Shaped[Tensor, "samples kept *features"]
    positions: Int64[Tensor, "samples kept"]
    size: int
    real: Bool[Tensor, "samples kept"] | None = None

    def __len__(self) -> int:
        return len(self.values)


@runtime_checkable
class PackingClassifier(MultiModalClassifier, Protocol):
    """A classifier that takes variable lengths: elements that are ablated are dropped instead of overwritten.

    A sub-sample of k of n elements then costs about k / n of a whole input, and nothing of the others is ever there.

    Attributes:
        packs: the modalities that `classify_kept` takes packed; the others are overwritten as for any classifier.

    A model may name, in `position_free: tuple[str, ...]`, those of them in which it does not care where elements stand:
    a bag of frames, the words of a text. Certificates then hold against insertions and deletions too. So that the claim
    cannot be wrong, positions are withheld: the model is told the order of the elements, 0, 1, ..., and their number.
    """

    packs: tuple[str, ...]

    def classify_kept(
        self,
        inputs: Mapping[str, Packed | Shaped[Tensor, "samples ..."]],
        kept: Mapping[str, Bool[Tensor, "samples elements"]],
    ) -> Float[Tensor, "samples labels"]:
        """Return logits from what was kept.

        Args:
            inputs: `Packed` for each modality in `packs`, the others as in `__call__`.
            kept: masks of the modalities that are not in `packs`, as in `__call__`.

        The same elements give the same logits as `__call__` with masks, up to rounding; so keeping all of them equals
        `__call__` without.
        """
        ...


@runtime_checkable
class MultiModalSegmenter(Protocol):
    """One label per pixel from several modalities that show the same scene, pixel for pixel.

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
        inputs: Mapping[str, Float[Tensor, "images _ height width"]],
        kept: Mapping[str, Bool[Tensor, "images height width"]] | None = None,
    ) -> Float[Tensor, "images labels height width"]:
        """Return logits. `kept` marks, per modality, the pixels that were not ablated; None means all of them.

        The values of ablated pixels, in any channel, must not change the answer.
        """
        ...


def cosine(images: Float[Tensor, "images dim"], texts: Float[Tensor, "texts dim"]) -> Float[Tensor, "images texts"]:
    """Return the cosine similarity of every image with every text, in [-1, 1]."""
    return nn.functional.normalize(images, dim=-1) @ nn.functional.normalize(texts, dim=-1).T


def check_captions(pixels: Float[Tensor, "images ..."], captions: Sequence[str], rows: Tensor | None) -> None:
    """Check that there is one caption per image, or one per row.

    Raises:
        ValueError: there is not.
    """
    if rows is None and len(captions) != len(pixels):
        raise ValueError(f"Expected one caption per image ({len(pixels)}), but got {len(captions)}.")
    if rows is not None and len(captions) != len(rows):
        raise ValueError(f"Expected one caption per row ({len(rows)}), but got {len(captions)}.")
