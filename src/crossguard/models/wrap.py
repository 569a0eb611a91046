"""Any networks behind the protocols: `TwoTowers` compares images and texts, `ImageToText` writes captions."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from crossguard.models.base import Tokens, check_captions
from crossguard.models.clip import spelt_mask
from crossguard.models.pictures import ReadsPictures
from crossguard.models.pixels import PixelRule
from crossguard.models.storage import load_weights, save_weights, told_name
from crossguard.models.token_ids import token_ids


class TwoTowers(ReadsPictures):
    """Your two networks behind the `VisionLanguageModel` protocol.

    Args:
        image: takes float [images, 3, height, width], normalised by the pixel rule's mean and deviation, and gives
            float [images, dim].
        text: takes token ids, int64 [texts, length], and bool [texts, length] that is False on padding, and gives
            float [texts, dim].
        tokenizer: in Transformers' format, with a padding token.
        pixel_rule: how photos become pixels.
        context_length: the most tokens of a text.
        name: shown in tables and written into rows.
        temperature: of the contrastive logits, > 0; it is trained as its logarithm.
        model_type: written into `config.json` by `save_pretrained`; the one under which `register_model` was told what
            makes such a model, so that `load_model` takes its folders.

    Raises:
        ValueError: a tokenizer without padding, or a temperature that is not positive.
    """

    def __init__(
        self,
        image: nn.Module,
        text: nn.Module,
        *,
        tokenizer: PreTrainedTokenizerBase,
        pixel_rule: PixelRule,
        context_length: int,
        name: str,
        temperature: float = 0.07,
        model_type: str = "two-towers",
    ) -> None:
        super().__init__(pixel_rule)
        if tokenizer.pad_token is None:
            raise ValueError("Expected a tokenizer with a padding token, but it has none.")
        if not temperature > 0:
            raise ValueError(f"Expected `temperature` > 0, but got {temperature!r}.")
        self.image, self.text = image, text
        self.tokenizer, self.name, self.context_length = tokenizer, name, context_length
        self.mask_token = spelt_mask(tokenizer)
        self.model_type = model_type
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Tokenise, pad to the longest text of the batch, cut at `context_length` tokens."""
        return token_ids(self.tokenizer, texts, most=self.context_length)

    def encode_image(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images dim"]:
        """Embed pixels in [0, 1]; differentiable."""
        embedding: Tensor = self.image(self.normalise(pixels))
        return embedding

    def encode_text(self, texts: Sequence[str] | Tokens) -> Float[Tensor, "texts dim"]:
        """Embed texts or tokens."""
        tokens = (texts if isinstance(texts, Tokens) else self.tokenize(texts)).to(self._mean.device)
        embedding: Tensor = self.text(tokens.ids, tokens.mask)
        return embedding

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """The inverse of the learnt temperature."""
        return (-self.log_temperature).exp()

    def tower(self, which: str) -> Iterable[nn.Parameter]:
        """Parameters of the "image" or the "text" network.

        Raises:
            ValueError: `which` is neither.
        """
        if which not in ("image", "text"):
            raise ValueError(f"Expected 'image' or 'text' as tower, but got {which!r}.")
        return list((self.image if which == "image" else self.text).parameters())

    def save_pretrained(self, folder: Path | str) -> None:
        """Write weights, name and type; `load_pretrained` of a `TwoTowers` made in the same way reads them back."""
        save_weights(self, folder, model_type=self.model_type, name=self.name)

    def load_pretrained(self, folder: Path | str) -> None:
        """Read what `save_pretrained` wrote, the name with it.

        Raises:
            ValueError: weights of another model, or a broken file.
        """
        load_weights(self, folder)
        self.name = told_name(folder)


@runtime_checkable
class Decoder(Protocol):
    """What `ImageToText` needs of a text network, which is a `torch.nn.Module` too."""

    def loss(self, states: Float[Tensor, "images ..."], captions: Sequence[str]) -> Float[Tensor, " images"]:
        """Return each image's mean cross-entropy per token of its caption, in nats; differentiable in the states."""
        ...

    def write(self, states: Float[Tensor, "images ..."], *, beams: int, min_length: int, max_length: int) -> list[str]:
        """Return one caption per image."""
        ...


class ImageToText(ReadsPictures):
    """Your image network and your text decoder behind the `Captioner` protocol.

    Args:
        image: takes normalised pixels, as in `TwoTowers`, and gives whatever the decoder reads, images first.
        text: the decoder, a `torch.nn.Module` with `loss` and `write`.
        pixel_rule: how photos become pixels.
        context_length: the most tokens of a caption.
        name: shown in tables and written into rows.
        prompt: how the decoder makes captions begin.
        model_type: as in `TwoTowers`.
    """

    def __init__(
        self,
        image: nn.Module,
        text: Decoder,
        *,
        pixel_rule: PixelRule,
        context_length: int,
        name: str,
        prompt: str = "",
        model_type: str = "image-to-text",
    ) -> None:
        super().__init__(pixel_rule)
        decoder: nn.Module = text  # type: ignore[assignment]
        self.image, self.text = image, decoder
        self.context_length, self.name, self.prompt, self.model_type = context_length, name, prompt, model_type

    def caption_loss(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        captions: Sequence[str],
        *,
        rows: Int64[Tensor, " captions"] | None = None,
    ) -> Float[Tensor, " captions"]:
        """Return each caption's mean cross-entropy per token; `rows` says which image it belongs to (None: one each).

        Raises:
            ValueError: other than one caption per image, or per row.
        """
        check_captions(pixels, captions, rows)
        decoder: Decoder = self.text  # type: ignore[assignment]
        states = self.image(self.normalise(pixels))
        return decoder.loss(states if rows is None else states[rows.to(states.device)], captions)

    @torch.no_grad()
    def generate(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        *,
        beams: int = 3,
        min_length: int = 5,
        max_length: int = 20,
    ) -> list[str]:
        """Return one caption per image."""
        decoder: Decoder = self.text  # type: ignore[assignment]
        states = self.image(self.normalise(pixels))
        return decoder.write(states, beams=beams, min_length=min_length, max_length=max_length)

    def tower(self, which: str) -> Iterable[nn.Parameter]:
        """Parameters of the "image" network or of the "text" decoder.

        Raises:
            ValueError: `which` is neither.
        """
        if which not in ("image", "text"):
            raise ValueError(f"Expected 'image' or 'text' as tower, but got {which!r}.")
        return list((self.image if which == "image" else self.text).parameters())

    def save_pretrained(self, folder: Path | str) -> None:
        """Write weights, name and type; `load_pretrained` of an `ImageToText` made in the same way reads them back."""
        save_weights(self, folder, model_type=self.model_type, name=self.name)

    def load_pretrained(self, folder: Path | str) -> None:
        """Read what `save_pretrained` wrote, the name with it.

        Raises:
            ValueError: weights of another model, or a broken file.
        """
        load_weights(self, folder)
        self.name = told_name(folder)
