"""SigLIP and SigLIP 2 through Transformers, behind the `VisionLanguageModel` protocol."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Siglip2Model, SiglipModel

from crossguard.models.base import Tokens
from crossguard.models.clip import spelt_mask
from crossguard.models.hub import local_folder
from crossguard.models.patches import additive, keep_tokens, to_patches
from crossguard.models.pictures import ReadsPictures
from crossguard.models.pixels import PixelRule
from crossguard.models.storage import CONFIG, load_transformers, told_name, write_model
from crossguard.models.supplied import NOTHING, Supplied
from crossguard.models.token_ids import token_ids
from crossguard.models.tokenizers import check_vocabulary


class SigLIP(ReadsPictures):
    """A SigLIP of Transformers (Zhai et al., 2023): pixels in [0, 1] and strings in, embeddings out.

    SigLIP 2 (Tschannen et al., 2025) is one too: of fixed resolution, with Gemma's vocabulary in lower case; and in
    "naflex" files, whose image tower takes any grid of patches. Pictures are squeezed to the largest square that such a
    tower's budget of patches allows, so that all have one size.

    Its text tower reads a sequence of fixed length and takes the state at its end, padding included: `tokenize` pads to
    the longest of the batch, and `encode_text` fills up, so that a text's embedding does not depend on its batch. Its
    pairwise loss also has a bias, `logit_bias`, which changes no ranking.

    Args:
        network: the Transformers model.
        tokenizer: its tokenizer.
        pixel_rule: how photos become pixels, and the normalisation that is applied inside `encode_image`.
        name: shown in tables and written into rows.
    """

    def __init__(
        self,
        network: SiglipModel | Siglip2Model,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pixel_rule: PixelRule,
        name: str,
    ) -> None:
        super().__init__(pixel_rule)
        self.network, self.tokenizer, self.name = network, tokenizer, name
        patch = network.config.vision_config.patch_size
        self.patch_grid = (self.image_size[0] // patch, self.image_size[1] // patch)
        self.context_length = int(network.config.text_config.max_position_embeddings)
        self.mask_token = spelt_mask(tokenizer)
        self.lower_case = isinstance(network, Siglip2Model) or _is_gemmas(tokenizer)

    @classmethod
    def from_pretrained(
        cls, source: Path | str, *, name: str | None = None, offline: bool = False, supplied: Supplied = NOTHING
    ) -> "SigLIP":
        """Load a local folder in Transformers' SigLIP layout, or a hub id such as "google/siglip2-base-patch16-224".

        Args:
            source: the folder or hub id.
            name: shown in tables; default: the folder's or hub id's last part.
            offline: look only at local files.
            supplied: what the files lack.

        Raises:
            ValueError: the checkpoint has missing or surplus weights, or lacks tokenizer or preprocessing.
        """
        folder = local_folder(source, offline=offline)
        kind: Any = (
            Siglip2Model if json.loads((folder / CONFIG).read_text())["model_type"] == "siglip2" else SiglipModel
        )
        config = kind.config_class.from_pretrained(str(folder), local_files_only=True)
        tokenizer = supplied.tokenizer_for(folder)
        check_vocabulary(tokenizer, size=config.text_config.vocab_size, end=None, where=folder)
        size = config.vision_config.image_size if kind is SiglipModel else _square(folder, config.vision_config)
        rule = supplied.pixel_rule_for(folder, size=size)
        network = load_transformers(kind, folder, offline=True, family="SigLIP")
        return cls(network, tokenizer, pixel_rule=rule, name=name or told_name(source)).eval()

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Tokenise, pad to the longest text of the batch, cut at `context_length` tokens."""
        read = [text.lower() for text in texts] if self.lower_case else texts
        return token_ids(self.tokenizer, read, most=self.context_length, padding_side="right")

    def encode_image(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        kept: Bool[Tensor, "images patches"] | None = None,
    ) -> Float[Tensor, "images dim"]:
        """Embed pixels in [0, 1], from the patches in `kept` alone, see `CLIP.encode_image`; differentiable.

        Raises:
            ValueError: an image that keeps no patch; there is no class token to stand for it.
        """
        vision = self.network.vision_model
        hidden, mask = self._patches(self.normalise(pixels)), None
        if kept is not None:
            if not bool(kept.any(dim=1).all()):
                raise ValueError("Expected at least one kept patch per image, but an image keeps none.")
            hidden, mask = keep_tokens(hidden, kept)
        encoded = vision.encoder(inputs_embeds=hidden, attention_mask=additive(mask, hidden.dtype))
        return self._pool(vision.post_layernorm(encoded.last_hidden_state), mask)

    def _patches(self, normal: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images patches channels"]:
        embeddings = self.network.vision_model.embeddings
        if not isinstance(self.network, Siglip2Model):
            tokens: Tensor = embeddings(normal)
            return tokens
        # One grid for all: its positions are interpolated once. Channels come last within a patch.
        values = to_patches(normal, self.patch_grid).permute(0, 1, 3, 4, 2).flatten(2)
        side = embeddings.position_embedding_size
        positions = embeddings.resize_positional_embeddings(
            embeddings.position_embedding.weight.reshape(side, side, -1),
            torch.tensor([self.patch_grid]),
            max_length=values.shape[1],
        )
        embedded: Tensor = embeddings.patch_embedding(values) + positions
        return embedded

    def _pool(
        self, hidden: Float[Tensor, "images tokens width"], mask: Bool[Tensor, "images tokens"] | None
    ) -> Float[Tensor, "images width"]:
        """The head of Transformers with a mask: a learnt query attends to the tokens."""
        head = self.network.vision_model.head
        probe = head.probe.expand(len(hidden), -1, -1)
        hidden = head.attention(probe, hidden, hidden, key_padding_mask=None if mask is None else ~mask)[0]
        pooled: Tensor = (hidden + head.mlp(head.layernorm(hidden)))[:, 0]
        return pooled

    def encode_text(self, texts: Sequence[str] | Tokens) -> Float[Tensor, "texts dim"]:
        """Embed texts or tokens, filled up with padding to `context_length`."""
        tokens = (texts if isinstance(texts, Tokens) else self.tokenize(texts)).to(self._mean.device)
        padding = int(self.tokenizer.pad_token_id)
        ids = tokens.ids.new_full((len(tokens), self.context_length), padding)
        ids[:, : tokens.ids.shape[1]] = tokens.ids.masked_fill(~tokens.mask, padding)
        embedding: Tensor = self.network.text_model(input_ids=ids).pooler_output
        return embedding

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """The learnt inverse temperature."""
        scale: Tensor = self.network.logit_scale.exp().squeeze()
        return scale

    @property
    def logit_bias(self) -> Float[Tensor, ""]:
        """The learnt bias of the pairwise loss: sigmoid(logit_scale * cosine + logit_bias) is a pair's probability."""
        bias: Tensor = self.network.logit_bias.squeeze()
        return bias

    def tower(self, which: str) -> Iterable[nn.Parameter]:
        """Parameters of the "image" or the "text" tower with its head.

        Raises:
            ValueError: `which` is neither.
        """
        if which not in ("image", "text"):
            raise ValueError(f"Expected 'image' or 'text' as tower, but got {which!r}.")
        part = self.network.vision_model if which == "image" else self.network.text_model
        return list(part.parameters())

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config, tokenizer, pixel rule and safetensors, whole or not at all."""
        write_model(
            folder, [self.network.save_pretrained, self.tokenizer.save_pretrained, self.pixel_rule.save], name=self.name
        )


def _is_gemmas(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a vocabulary is Gemma's, which SigLIP 2 was trained on in lower case; its files do not say so."""
    return "Gemma" in type(tokenizer).__name__


def _square(folder: Path, vision: Any) -> int:
    """Return the edge of the largest square within a naflex checkpoint's budget of patches, or as it was saved here."""
    try:
        rule = json.loads((folder / "preprocessor_config.json").read_text())
        told = rule.get("max_num_patches", vision.num_patches)
        if isinstance(rule.get("size"), dict):
            return int(rule["size"]["height"])
    except (OSError, ValueError, AttributeError, KeyError):
        told = vision.num_patches
    return math.isqrt(int(told)) * int(vision.patch_size)
