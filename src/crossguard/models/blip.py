"""BLIP for retrieval, through Transformers, behind the `FusionModel` protocol."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import BlipForImageTextRetrieval, PreTrainedTokenizerBase

from crossguard.models.base import States, Tokens
from crossguard.models.blip_released import MAX_WORDS, read_released_retrieval
from crossguard.models.captions import clean_for_blip
from crossguard.models.patches import keep_tokens
from crossguard.models.pictures import ReadsPictures
from crossguard.models.pixels import PixelRule
from crossguard.models.storage import load_transformers, told_name, write_model
from crossguard.models.token_ids import token_ids
from crossguard.models.tokenizers import load_tokenizer
from crossguard.models.wordpiece import wordpiece_tokenizer

CONTEXT_LENGTH = 35
START_TEMPERATURE = 0.07
ENCODE = "[ENC]"


class BLIP(ReadsPictures):
    """BLIP's retrieval model (Li et al., ICML 2022): a ViT and a BERT whose every layer can look at the image.

    The text alone is read as `[CLS] x [SEP]`, with the image as `[ENC] x [SEP]`: matching logits without `[ENC]` are
    not those that the model was trained for, and Transformers leaves it to the caller.

    Args:
        network: the Transformers model.
        tokenizer: BERT's, with or without `[ENC]`; without it, the last id of the vocabulary is taken for it.
        pixel_rule: how photos become pixels.
        name: shown in tables and written into rows.
        temperature: of the contrastive logits; Transformers' files lack it, so it is kept in `config.json`.

    Raises:
        ValueError: the vocabulary has no room for `[ENC]`.
    """

    rank_adds_cosine = True

    def __init__(
        self,
        network: BlipForImageTextRetrieval,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pixel_rule: PixelRule,
        name: str,
        temperature: float = START_TEMPERATURE,
    ) -> None:
        super().__init__(pixel_rule)
        text = network.config.text_config
        self.network, self.tokenizer, self.name = network, tokenizer, name
        self.encode_id = encode_token(tokenizer, vocabulary=text.vocab_size)
        patch = int(network.config.vision_config.patch_size)
        self.patch_grid = (pixel_rule.size[0] // patch, pixel_rule.size[1] // patch)
        self.context_length = min(CONTEXT_LENGTH, int(text.max_position_embeddings))
        self.mask_token = str(tokenizer.mask_token)
        self.temperature = nn.Parameter(torch.tensor(float(temperature)))

    @classmethod
    def from_pretrained(cls, source: Path | str, *, name: str | None = None, offline: bool = False) -> "BLIP":
        """Load a local folder in Transformers' layout, or a hub id such as "Salesforce/blip-itm-base-flickr".

        Raises:
            ValueError: the checkpoint has missing or surplus weights.
        """
        network = load_transformers(BlipForImageTextRetrieval, source, offline=offline, family="BLIP retrieval")
        tokenizer = load_tokenizer(source, offline=offline)
        rule = PixelRule.from_pretrained(source, default_size=network.config.vision_config.image_size, offline=offline)
        return cls(
            network,
            tokenizer,
            pixel_rule=rule,
            name=name or told_name(source),
            temperature=getattr(network.config, "contrastive_temperature", START_TEMPERATURE),
        ).eval()

    @classmethod
    def from_released(
        cls,
        checkpoint: Path | str,
        *,
        vocabulary: Path | str,
        image_size: int | None = None,
        vision_heads: int | None = None,
        text_heads: int | None = None,
        name: str = "blip",
    ) -> "BLIP":
        """Convert a retrieval checkpoint as Salesforce released it, such as `model_base_retrieval_flickr.pth`.

        Args:
            checkpoint: the `.pth` file.
            vocabulary: `vocab.txt` of `bert-base-uncased`; `[DEC]` and `[ENC]` are added after it.
            image_size: edge of the pictures in pixels; None: the checkpoint's own.
            vision_heads: attention heads of the ViT; None: one per 64 channels, as released.
            text_heads: the same for BERT.
            name: shown in tables.

        Raises:
            ValueError: not a readable checkpoint, another family, or any key that is missing or unknown.
        """
        network, temperature = read_released_retrieval(
            checkpoint, image_size=image_size, vision_heads=vision_heads, text_heads=text_heads
        )
        tokenizer = wordpiece_tokenizer(vocabulary, template="[CLS] $A [SEP]", extra=("[DEC]", ENCODE))
        network.config.text_config.sep_token_id = tokenizer.sep_token_id
        return cls(
            network,
            tokenizer,
            pixel_rule=PixelRule.squeeze(network.config.vision_config.image_size),
            name=name,
            temperature=temperature,
        ).eval()

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Clean as BLIP does, tokenise as `[CLS] x [SEP]`, pad to the longest of the batch."""
        cleaned = [clean_for_blip(text, max_words=MAX_WORDS, mask_token=self.mask_token) for text in texts]
        return token_ids(self.tokenizer, cleaned, most=self.context_length)

    def encode_image(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        kept: Bool[Tensor, "images patches"] | None = None,
    ) -> Float[Tensor, "images dim"]:
        """Embed pixels in [0, 1], from the patches in `kept` alone; differentiable.

        The encoder takes no mask, so images are encoded together that keep as many patches.
        """
        if kept is None:
            return self.encode_image_states(pixels).embedding
        vision, counts = self.network.vision_model, kept.sum(dim=1)
        tokens = vision.embeddings(self.normalise(pixels))
        parts, places = [], []
        for count in counts.unique().tolist():
            rows = (counts == count).nonzero()[:, 0]
            patches, _ = keep_tokens(tokens[rows, 1:], kept[rows])
            hidden = vision.encoder(inputs_embeds=torch.cat([tokens[rows, :1], patches], dim=1)).last_hidden_state
            parts.append(self.network.vision_proj(vision.post_layernorm(hidden)[:, 0]))
            places.append(rows)
        return torch.cat(parts)[torch.cat(places).argsort()]

    def encode_text(self, texts: Sequence[str] | Tokens) -> Float[Tensor, "texts dim"]:
        """Embed texts or tokens."""
        tokens = (texts if isinstance(texts, Tokens) else self.tokenize(texts)).to(self._mean.device)
        output = self.network.text_encoder(input_ids=tokens.ids, attention_mask=tokens.mask.long())
        embedding: Tensor = self.network.text_proj(output.last_hidden_state[:, 0])
        return embedding

    def encode_image_states(self, pixels: Float[Tensor, "images 3 height width"]) -> States:
        """Encode pixels in [0, 1]: the ViT's states, the class token's first."""
        output = self.network.vision_model(pixel_values=self.normalise(pixels))
        hidden = output.last_hidden_state
        mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        return States(hidden, mask, self.network.vision_proj(hidden[:, 0]))

    def embed_patches(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images patches dim"]:
        """Embed the patches of pixels in [0, 1]: their last states, projected as the class token's."""
        embedding: Tensor = self.network.vision_proj(self.encode_image_states(pixels).hidden[:, 1:])
        return embedding

    def encode_text_states(self, texts: Sequence[str] | Tokens) -> States:
        """Encode texts or tokens: what BERT reads beside an image, which is the word embeddings of `[ENC] x`."""
        tokens = (texts if isinstance(texts, Tokens) else self.tokenize(texts)).to(self._mean.device)
        ids = tokens.ids.clone()
        ids[:, 0] = self.encode_id
        hidden = self.network.text_encoder.embeddings(input_ids=ids)
        return States(hidden, tokens.mask, self.encode_text(tokens))

    def match(self, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"]) -> Float[Tensor, "pairs 2"]:
        """Return the logits (no match, match) of the chosen pairs."""
        logits, _ = self.match_with_attention(images, texts, pairs, layer=None)
        return logits

    def match_with_attention(
        self, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"], *, layer: int | None
    ) -> tuple[Float[Tensor, "pairs 2"], Float[Tensor, "pairs heads tokens places"] | None]:
        """As `match`, with the attention of one of BERT's layers to the image, in the graph, for grounding.

        Raises:
            ValueError: `layer` is no layer of BERT.
        """
        embedding, weights = self._fuse(images, texts, pairs, layer=layer)
        return self.network.itm_head(embedding), weights

    def fuse(self, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"]) -> Float[Tensor, "pairs width"]:
        """Return the state of `[ENC]` after BERT has read text and image, for the chosen pairs."""
        embedding, _ = self._fuse(images, texts, pairs, layer=None)
        return embedding

    def _fuse(
        self, images: States, texts: States, pairs: Int64[Tensor, "pairs 2"], *, layer: int | None
    ) -> tuple[Float[Tensor, "pairs width"], Float[Tensor, "pairs heads tokens places"] | None]:
        layers = self.network.text_encoder.encoder.layer
        if layer is not None and not 0 <= layer < len(layers):
            raise ValueError(f"Expected a layer in [0, {len(layers)}), but got {layer}.")
        rows, columns = pairs.to(images.hidden.device).unbind(dim=1)
        with _attention_of(None if layer is None else layers[layer].crossattention.self) as weights:
            output = self.network.text_encoder(
                encoder_embeds=texts.hidden[columns],
                attention_mask=texts.mask[columns].long(),
                encoder_hidden_states=images.hidden[rows],
                encoder_attention_mask=images.mask[rows].long(),
            )
        return output.last_hidden_state[:, 0], weights[0] if weights else None

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """The inverse of the learnt temperature, which is kept within [0.001, 0.5] as in training."""
        return 1 / self.temperature.clamp(0.001, 0.5)

    def tower(self, which: str) -> Iterable[nn.Parameter]:
        """Parameters of the "image" tower, the "text" tower (each with its projection), or of "fusion".

        Fusion is cross-attention and the matching head; BERT's other layers serve both and count as text.

        Raises:
            ValueError: `which` is none of them.
        """
        network = self.network
        cross = {
            id(parameter) for name, parameter in network.text_encoder.named_parameters() if ".crossattention." in name
        }
        text = list(network.text_encoder.parameters())
        parts: dict[str, list[nn.Parameter]] = {
            "image": [*network.vision_model.parameters(), *network.vision_proj.parameters()],
            "text": [*(p for p in text if id(p) not in cross), *network.text_proj.parameters()],
            "fusion": [*(p for p in text if id(p) in cross), *network.itm_head.parameters()],
        }
        if which not in parts:
            raise ValueError(f"Expected 'image', 'text' or 'fusion' as tower, but got {which!r}.")
        return parts[which]

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config, tokenizer, pixel rule and safetensors, whole or not at all."""
        self.network.config.contrastive_temperature = float(self.temperature.detach())
        write_model(
            folder, [self.network.save_pretrained, self.tokenizer.save_pretrained, self.pixel_rule.save], name=self.name
        )


@contextmanager
def _attention_of(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    """Catch the attention weights that a layer of Transformers computes and drops."""
    caught: list[Tensor] = []
    if layer is None:
        yield caught
        return
    hook = layer.register_forward_hook(lambda _layer, _inputs, output: caught.append(output[1]))
    try:
        yield caught
    finally:
        hook.remove()


def encode_token(tokenizer: PreTrainedTokenizerBase, *, vocabulary: int) -> int:
    """Return the id of `[ENC]`: the tokenizer's, or the last of a vocabulary that is larger than the tokenizer's.

    Raises:
        ValueError: neither is there.
    """
    known = tokenizer.get_vocab()
    if ENCODE in known:
        found: int = known[ENCODE]
        if found < vocabulary:
            return found
    elif len(tokenizer) < vocabulary:
        return vocabulary - 1
    raise ValueError(
        f"Expected room for {ENCODE!r} after {len(tokenizer)} word pieces (released BLIP: id 30523 of 30524), but the "
        f"network has {vocabulary} word embeddings."
    )
