"""ALBEF behind the `FusionModel` protocol."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from crossguard.checks import expanded
from crossguard.models.albef.checkpoint import read_released
from crossguard.models.albef.config import AlbefConfig
from crossguard.models.albef.network import AlbefNetwork
from crossguard.models.base import States, Tokens
from crossguard.models.captions import clean_for_albef
from crossguard.models.originals import check_shapes
from crossguard.models.pictures import ReadsPictures
from crossguard.models.pixels import PixelRule
from crossguard.models.storage import told_name, write_model
from crossguard.models.token_ids import token_ids
from crossguard.models.tokenizers import load_tokenizer
from crossguard.models.wordpiece import wordpiece_tokenizer


class ALBEF(ReadsPictures):
    """Align before fuse (Li et al., NeurIPS 2021): a ViT, a BERT, and fusion layers that read both.

    Args:
        network: the weights.
        tokenizer: word pieces as `[CLS] x`, without `[SEP]`, as the released models were trained.
        pixel_rule: how photos become pixels.
        name: shown in tables and written into rows.
    """

    rank_adds_cosine = False

    def __init__(
        self,
        network: AlbefNetwork,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pixel_rule: PixelRule | None = None,
        name: str = "albef",
    ) -> None:
        config = network.config
        side = (config.image_size, config.image_size)
        rule = pixel_rule or PixelRule.squeeze(config.image_size)
        super().__init__(rule)
        if rule.size != side:
            raise ValueError(f"Expected pictures of {side} pixels, but the pixel rule gives {rule.size}.")
        if len(tokenizer) > config.vocab_size:
            raise ValueError(f"Expected at most {config.vocab_size} word pieces, but got {len(tokenizer)}.")
        self.network, self.tokenizer, self.name = network, tokenizer, name
        self.patch_grid = (config.grid, config.grid)
        self.context_length = config.context_length
        self.mask_token = str(tokenizer.mask_token)

    @classmethod
    def from_pretrained(cls, source: Path | str, *, name: str | None = None, offline: bool = True) -> "ALBEF":
        """Load a folder that `save_pretrained` wrote; there is no hub to ask, so `offline` changes nothing.

        Raises:
            ValueError: an unknown key in `config.json`, or weights that are missing, unknown or of another shape.
        """
        folder = expanded(source)
        config = AlbefConfig.from_dict(json.loads((folder / "config.json").read_text()))
        with torch.random.fork_rng():
            network = AlbefNetwork(config)
        state = load_file(folder / "model.safetensors")
        check_shapes(state, network.state_dict(), family="ALBEF")
        network.load_state_dict(state)
        tokenizer = load_tokenizer(folder, offline=True)
        rule = PixelRule.from_pretrained(folder, default_size=config.image_size, offline=True)
        return cls(network, tokenizer, pixel_rule=rule, name=name or told_name(folder)).eval()

    @classmethod
    def from_released(
        cls,
        checkpoint: Path | str,
        *,
        vocabulary: Path | str,
        image_size: int | None = None,
        vision_heads: int | None = None,
        text_heads: int | None = None,
        name: str = "albef",
    ) -> "ALBEF":
        """Load a checkpoint as its authors released it, such as `flickr30k.pth`.

        Args:
            checkpoint: the `.pth` file: a dict with `model`, or a bare state dict.
            vocabulary: `vocab.txt` of `bert-base-uncased`.
            image_size: edge of the pictures in pixels, for example 384; None: the checkpoint's own.
            vision_heads: attention heads of the ViT; None: one per 64 channels, as released.
            text_heads: the same for BERT.
            name: shown in tables.

        Raises:
            ValueError: not a readable checkpoint, another family, or any key that is missing or unknown.
        """
        tokenizer = wordpiece_tokenizer(vocabulary, template="[CLS] $A")
        network = read_released(checkpoint, image_size=image_size, vision_heads=vision_heads, text_heads=text_heads)
        return cls(network, tokenizer, name=name).eval()

    @classmethod
    def from_config(cls, config: AlbefConfig, *, vocabulary: Path | str, seed: int, name: str = "albef") -> "ALBEF":
        """Build an ALBEF of the given sizes with random weights drawn from `seed`."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = AlbefNetwork(config)
        return cls(network, wordpiece_tokenizer(vocabulary, template="[CLS] $A"), name=name).eval()

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Clean as ALBEF does (punctuation deleted), tokenise as `[CLS] x`, pad to the longest of the batch."""
        words = self.network.config.max_words
        cleaned = [clean_for_albef(text, max_words=words, mask_token=self.mask_token) for text in texts]
        return token_ids(self.tokenizer, cleaned, most=self.context_length)

    def encode_image(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        kept: Bool[Tensor, "images patches"] | None = None,
    ) -> Float[Tensor, "images dim"]:
        """Embed pixels in [0, 1], from the patches in `kept` alone; differentiable."""
        return self.encode_image_states(pixels, kept).embedding

    def encode_text(self, texts: Sequence[str] | Tokens) -> Float[Tensor, "texts dim"]:
        """Embed texts or tokens."""
        return self.encode_text_states(texts).embedding

    def encode_image_states(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        kept: Bool[Tensor, "images patches"] | None = None,
    ) -> States:
        """Encode pixels in [0, 1]: the ViT's states, the class token's first."""
        hidden, mask = self.network.visual_encoder(self.normalise(pixels), kept)
        return States(hidden, mask, self.network.vision_proj(hidden[:, 0]))

    def embed_patches(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images patches dim"]:
        """Embed the patches of pixels in [0, 1]: their last states, projected as the class token's."""
        embedding: Tensor = self.network.vision_proj(self.encode_image_states(pixels).hidden[:, 1:])
        return embedding

    def encode_text_states(self, texts: Sequence[str] | Tokens) -> States:
        """Encode texts or tokens: the states of BERT's text layers."""
        tokens = (texts if isinstance(texts, Tokens) else self.tokenize(texts)).to(self._mean.device)
        hidden = self.network.text_encoder(tokens.ids, tokens.mask)
        return States(hidden, tokens.mask, self.network.text_proj(hidden[:, 0]))

    def match(self, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"]) -> Float[Tensor, "pairs 2"]:
        """Return the logits (no match, match) of the chosen pairs."""
        logits, _ = self.match_with_attention(images, texts, pairs, layer=None)
        return logits

    def match_with_attention(
        self, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"], *, layer: int | None
    ) -> tuple[Float[Tensor, "pairs 2"], Float[Tensor, "pairs heads tokens places"] | None]:
        """As `match`, with the attention of one fusion layer to the image, in the graph, for grounding.

        Args:
            images: of `encode_image_states`.
            texts: of `encode_text_states`.
            pairs: (row in `images`, row in `texts`).
            layer: number of the layer among all of BERT's, from `fusion_start` on; None for no attention.

        Raises:
            ValueError: `layer` is no fusion layer.
        """
        embedding, weights = self._fuse(images, texts, pairs, layer=layer)
        return self.network.itm_head(embedding), weights

    def fuse(self, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"]) -> Float[Tensor, "pairs width"]:
        """Return the state of the text's class token after the fusion layers, for the chosen pairs."""
        embedding, _ = self._fuse(images, texts, pairs, layer=None)
        return embedding

    def _fuse(
        self, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"], *, layer: int | None
    ) -> tuple[Float[Tensor, "pairs width"], Float[Tensor, "pairs heads tokens places"] | None]:
        config = self.network.config
        if layer is not None and not config.fusion_start <= layer < config.text_layers:
            raise ValueError(
                f"Expected a fusion layer in [{config.fusion_start}, {config.text_layers}), but got {layer}."
            )
        chosen, columns = pairs.to(images.hidden.device).unbind(dim=1)
        # Nearly all of a pair's cost is the image's keys and values: once per image, however many texts it meets.
        used, rows = torch.unique(chosen, return_inverse=True)
        hidden, weights = self.network.text_encoder.fuse(
            texts.hidden[columns],
            texts.mask[columns],
            images.hidden[used],
            images.mask[used],
            rows=rows,
            weights_of=layer,
        )
        return hidden[:, 0], weights

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """The inverse of the learnt temperature, which is kept within [0.001, 0.5] as in training."""
        return 1 / self.network.temp.clamp(0.001, 0.5)

    def tower(self, which: str) -> Iterable[nn.Parameter]:
        """Parameters of the "image" tower, the "text" tower (each with its projection), or of "fusion".

        Raises:
            ValueError: `which` is none of them.
        """
        network, start = self.network, self.network.config.fusion_start
        parts: dict[str, tuple[nn.Module, ...]] = {
            "image": (network.visual_encoder, network.vision_proj),
            "text": (
                network.text_encoder.embeddings,
                *network.text_encoder.encoder.layer[:start],
                network.text_proj,
            ),
            "fusion": (*network.text_encoder.encoder.layer[start:], network.itm_head),
        }
        if which not in parts:
            raise ValueError(f"Expected 'image', 'text' or 'fusion' as tower, but got {which!r}.")
        return [parameter for part in parts[which] for parameter in part.parameters()]

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config, tokenizer, pixel rule and safetensors, whole or not at all."""
        write_model(folder, [self._save_weights, self.tokenizer.save_pretrained, self.pixel_rule.save], name=self.name)

    def _save_weights(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(self.network.config.to_dict(), indent=2) + "\n")
        state = {key: value.detach().cpu().contiguous() for key, value in self.network.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
