"""CLIP through Transformers, behind the `VisionLanguageModel` protocol."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import (
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    MetaClip2Model,
    PreTrainedTokenizerBase,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from crossguard.checks import lookup
from crossguard.models.base import Tokens
from crossguard.models.hub import local_folder
from crossguard.models.patches import additive, keep_tokens
from crossguard.models.pictures import ReadsPictures
from crossguard.models.pixels import PixelRule
from crossguard.models.prefixes import pool_by_beginnings
from crossguard.models.storage import CONFIG, load_transformers, told_name, write_model
from crossguard.models.supplied import NOTHING, Supplied
from crossguard.models.token_ids import token_ids
from crossguard.models.tokenizers import check_vocabulary


class ReadsTexts(ReadsPictures):
    """What all CLIPs share whose text tower is CLIP's causal transformer, whatever reads their pictures.

    Attributes:
        network: has `text_model` and `text_projection` of Transformers, and `logit_scale`, a logarithm.
        tokenizer: of its texts.
        context_length: the most tokens of a text.
    """

    network: Any
    tokenizer: PreTrainedTokenizerBase
    context_length: int

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Tokenise, pad to the longest text of the batch, cut at `context_length` tokens."""
        return token_ids(self.tokenizer, texts, most=self.context_length, padding_side="right")

    def encode_text(self, texts: Sequence[str] | Tokens) -> Float[Tensor, "texts dim"]:
        """Embed texts or tokens."""
        tokens = (texts if isinstance(texts, Tokens) else self.tokenize(texts)).to(self._mean.device)
        output = self.network.text_model(input_ids=tokens.ids, attention_mask=tokens.mask.long())
        embedding: Tensor = self.network.text_projection(output.pooler_output)
        return embedding

    @torch.no_grad()
    def encode_variants(self, tokens: Tokens) -> Float[Tensor, "texts dim"]:
        """Embed texts that mostly begin alike, as `encode_text` does to rounding, each beginning once; no gradients."""
        pooled = pool_by_beginnings(self.network.text_model, tokens)
        if pooled is None:
            return self.encode_text(tokens)
        embedding: Tensor = self.network.text_projection(pooled)
        return embedding

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """The learnt inverse temperature, at most 100 as in the paper."""
        scale: Tensor = self.network.logit_scale.exp().clamp(max=100.0)
        return scale


class CLIP(ReadsTexts):
    """A CLIP of Transformers (Radford et al., 2021): pixels in [0, 1] and strings in, embeddings out.

    MetaCLIP 2 is one too, with a vocabulary of many languages.

    Args:
        network: the Transformers model.
        tokenizer: its tokenizer.
        pixel_rule: how photos become pixels, and the normalisation that is applied inside `encode_image`.
        name: shown in tables and written into rows.
    """

    def __init__(
        self,
        network: CLIPModel | MetaClip2Model | ChineseCLIPModel,
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

    @classmethod
    def from_pretrained(
        cls, source: Path | str, *, name: str | None = None, offline: bool = False, supplied: Supplied = NOTHING
    ) -> "CLIP":
        """Load a local folder in Transformers' layout of CLIP or MetaCLIP 2, or a hub id.

        Args:
            source: the folder, or a hub id such as "openai/clip-vit-base-patch16".
            name: shown in tables; default: the folder's or hub id's last part.
            offline: look only at local files.
            supplied: what the files lack.

        Raises:
            ValueError: the checkpoint has missing or surplus weights, or lacks tokenizer or preprocessing.
        """
        folder = local_folder(source, offline=offline)
        told = json.loads((folder / CONFIG).read_text()).get("model_type")
        kind = lookup(_KINDS, str(told), what="model type of CLIP")
        config = kind.config_class.from_pretrained(str(folder), local_files_only=True)
        tokenizer = supplied.tokenizer_for(folder)
        text = config.text_config
        early = text.eos_token_id == 2 and kind is CLIPModel  # files of CLIP's early days, which pool at the highest id
        check_vocabulary(
            tokenizer, size=text.vocab_size, end=text.vocab_size - 1 if early else text.eos_token_id, where=folder
        )
        rule = supplied.pixel_rule_for(folder, size=config.vision_config.image_size)
        network = load_transformers(kind, folder, offline=True, family=kind.__name__.removesuffix("Model"))
        return cls(network, tokenizer, pixel_rule=rule, name=name or told_name(source)).eval()

    @classmethod
    def from_sizes(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        *,
        image_size: int,
        patch_size: int,
        vision_width: int,
        vision_layers: int,
        text_width: int,
        text_layers: int,
        context_length: int,
        embed_dim: int,
        seed: int,
        name: str = "clip",
    ) -> "CLIP":
        """Build a CLIP of the given sizes with random weights drawn from `seed`; one head per 32 channels."""
        config = CLIPConfig(
            text_config=CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=text_width,
                intermediate_size=4 * text_width,
                num_hidden_layers=text_layers,
                num_attention_heads=max(1, text_width // 32),
                max_position_embeddings=context_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            ).to_dict(),
            vision_config=CLIPVisionConfig(
                hidden_size=vision_width,
                intermediate_size=4 * vision_width,
                num_hidden_layers=vision_layers,
                num_attention_heads=max(1, vision_width // 32),
                image_size=image_size,
                patch_size=patch_size,
            ).to_dict(),
            projection_dim=embed_dim,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = CLIPModel(config)
        rule = PixelRule(size=(image_size, image_size), mean=tuple(OPENAI_CLIP_MEAN), std=tuple(OPENAI_CLIP_STD))
        return cls(network, tokenizer, pixel_rule=rule, name=name).eval()

    def encode_image(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        kept: Bool[Tensor, "images patches"] | None = None,
    ) -> Float[Tensor, "images dim"]:
        """Embed pixels in [0, 1], from the patches in `kept` alone; differentiable.

        Args:
            pixels: before normalisation.
            kept: patches, row by row, that stay in the token sequence; None: all. What the others hold, NaN included,
                does not matter, and the cost falls with the largest number that an image keeps.
        """
        normal = self.normalise(pixels)
        if kept is None:
            pooled = self.network.vision_model(pixel_values=normal).pooler_output
        else:
            pooled = self._pool_kept(normal, kept)
        embedding: Tensor = self.network.visual_projection(pooled)
        return embedding

    def embed_patches(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images patches dim"]:
        """Embed the patches of pixels in [0, 1]: their last states, normalised and projected as the class token's."""
        vision = self.network.vision_model
        states = vision(pixel_values=self.normalise(pixels)).last_hidden_state[:, 1:]
        embedding: Tensor = self.network.visual_projection(vision.post_layernorm(states))
        return embedding

    def _pool_kept(
        self, normal: Float[Tensor, "images 3 height width"], kept: Bool[Tensor, "images patches"]
    ) -> Float[Tensor, "images channels"]:
        vision = self.network.vision_model
        tokens = vision.embeddings(normal)
        patches, mask = keep_tokens(tokens[:, 1:], kept)
        hidden = vision.pre_layrnorm(torch.cat([tokens[:, :1], patches], dim=1))
        if mask is not None:
            mask = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)
        encoded = vision.encoder(inputs_embeds=hidden, attention_mask=additive(mask, hidden.dtype))
        pooled: Tensor = vision.post_layernorm(encoded.last_hidden_state[:, 0])
        return pooled

    def tower(self, which: str) -> Iterable[nn.Parameter]:
        """Parameters of the "image" or the "text" tower with its projection.

        Raises:
            ValueError: `which` is neither.
        """
        if which == "image":
            return [*self.network.vision_model.parameters(), *self.network.visual_projection.parameters()]
        if which == "text":
            return [*self.network.text_model.parameters(), *self.network.text_projection.parameters()]
        raise ValueError(f"Expected 'image' or 'text' as tower, but got {which!r}.")

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config, tokenizer, pixel rule and safetensors, whole or not at all."""
        write_model(
            folder, [self.network.save_pretrained, self.tokenizer.save_pretrained, self.pixel_rule.save], name=self.name
        )


_KINDS: dict[str, Any] = {"clip": CLIPModel, "metaclip_2": MetaClip2Model}


def spelt_mask(tokenizer: PreTrainedTokenizerBase) -> str:
    """Choose the word that hides a word. OpenAI's tokenizer has none and its unknown token ends the text: spell it."""
    for token in (tokenizer.mask_token, tokenizer.unk_token):
        if token is not None and token not in (tokenizer.eos_token, tokenizer.bos_token):
            return str(token)
    return "[UNK]"
