"""BLIP that writes captions, through Transformers, behind the `Captioner` protocol."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import BlipForConditionalGeneration, PreTrainedTokenizerBase

from crossguard.models.base import Tokens, check_captions
from crossguard.models.blip_released import MAX_WORDS, read_released_captioner
from crossguard.models.captions import clean_for_blip
from crossguard.models.pictures import ReadsPictures
from crossguard.models.pixels import PixelRule
from crossguard.models.storage import load_transformers, told_name, write_model
from crossguard.models.token_ids import token_ids
from crossguard.models.tokenizers import load_tokenizer
from crossguard.models.wordpiece import wordpiece_tokenizer

CONTEXT_LENGTH = 40
PROMPT = "a picture of "


class BlipCaptioner(ReadsPictures):
    """BLIP's captioning model (Li et al., ICML 2022): a ViT and a decoder that starts with `[DEC]` and the prompt.

    Args:
        network: the Transformers model.
        tokenizer: BERT's.
        pixel_rule: how photos become pixels.
        name: shown in tables and written into rows.
        prompt: how every caption begins, in training and when writing; may be empty.
    """

    def __init__(
        self,
        network: BlipForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pixel_rule: PixelRule,
        name: str,
        prompt: str = PROMPT,
    ) -> None:
        super().__init__(pixel_rule)
        self.network, self.tokenizer, self.name = network, tokenizer, name
        self.prompt = prompt
        self.context_length = min(CONTEXT_LENGTH, int(network.config.text_config.max_position_embeddings))

    @classmethod
    def from_pretrained(cls, source: Path | str, *, name: str | None = None, offline: bool = False) -> "BlipCaptioner":
        """Load a local folder in Transformers' layout, or a hub id such as "Salesforce/blip-image-captioning-base".

        Raises:
            ValueError: the checkpoint has missing or surplus weights.
        """
        network = load_transformers(BlipForConditionalGeneration, source, offline=offline, family="BLIP captioning")
        rule = PixelRule.from_pretrained(source, default_size=network.config.vision_config.image_size, offline=offline)
        return cls(
            network,
            load_tokenizer(source, offline=offline),
            pixel_rule=rule,
            name=name or told_name(source),
            prompt=getattr(network.config, "prompt", PROMPT),
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
        name: str = "blip-captioner",
    ) -> "BlipCaptioner":
        """Convert a captioning checkpoint as Salesforce released it, such as `model_base_caption_capfilt_large.pth`.

        The arguments and errors are those of `BLIP.from_released`.
        """
        network = read_released_captioner(
            checkpoint, image_size=image_size, vision_heads=vision_heads, text_heads=text_heads
        )
        tokenizer = wordpiece_tokenizer(vocabulary, template="[CLS] $A [SEP]", extra=("[DEC]", "[ENC]"))
        network.config.text_config.sep_token_id = tokenizer.sep_token_id
        return cls(
            network,
            tokenizer,
            pixel_rule=PixelRule.squeeze(network.config.vision_config.image_size),
            name=name,
        ).eval()

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Clean captions as BLIP does, put the prompt before them, and tokenise as `[DEC] prompt x [SEP]`."""
        cleaned = [clean_for_blip(text, max_words=MAX_WORDS) for text in texts]
        tokens = token_ids(self.tokenizer, [self.prompt + text for text in cleaned], most=self.context_length)
        tokens.ids[:, 0] = self.network.config.text_config.bos_token_id
        return tokens

    def caption_loss(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        captions: Sequence[str],
        *,
        rows: Int64[Tensor, " captions"] | None = None,
    ) -> Float[Tensor, " captions"]:
        """Return each caption's mean cross-entropy per token, the end included and the prompt not.

        Args:
            pixels: in [0, 1]; the loss is differentiable in them.
            captions: one per image, or as `rows` says.
            rows: which image each caption belongs to; None: one each.

        Raises:
            ValueError: other than one caption per image, or per row.
        """
        check_captions(pixels, captions, rows)
        tokens = self.tokenize(captions).to(pixels.device)
        image = self._encode(pixels)
        image = image if rows is None else image[rows.to(image.device)]
        output = self.network.text_decoder(
            input_ids=tokens.ids,
            attention_mask=tokens.mask.long(),
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long, device=image.device),
        )
        counted = tokens.mask[:, 1:].clone()
        counted[:, : self._prompt_ids().shape[1] - 1] = False
        smoothing = float(self.network.config.text_config.label_smoothing)
        surprise = cross_entropy(
            output.logits[:, :-1].transpose(1, 2).float(),
            tokens.ids[:, 1:],
            reduction="none",
            label_smoothing=smoothing,
        )
        return (surprise * counted).sum(dim=1) / counted.sum(dim=1)

    @torch.no_grad()
    def generate(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        *,
        beams: int = 3,
        min_length: int = 5,
        max_length: int = 20,
    ) -> list[str]:
        """Return one caption per image by beam search, without the prompt.

        Args:
            pixels: in [0, 1].
            beams: hypotheses kept per image.
            min_length: fewest tokens, `[DEC]` and prompt included.
            max_length: most tokens, the same counted.
        """
        start = self._prompt_ids().to(pixels.device).expand(len(pixels), -1)
        image = self._encode(pixels)
        written = self.network.text_decoder.generate(
            input_ids=start,
            attention_mask=torch.ones_like(start),
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long, device=image.device),
            eos_token_id=self.tokenizer.sep_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            num_beams=beams,
            do_sample=False,
            min_length=min_length,
            max_length=max_length,
        )
        decoded = self.tokenizer.batch_decode(written[:, start.shape[1] :], skip_special_tokens=True)
        return [caption.strip() for caption in decoded]

    def _encode(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images tokens channels"]:
        output = self.network.vision_model(pixel_values=self.normalise(pixels))
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _prompt_ids(self) -> Tensor:
        """`[DEC] prompt`, without the end."""
        ids: Tensor = self.tokenizer([self.prompt], return_tensors="pt")["input_ids"][:, :-1]
        ids[:, 0] = self.network.config.text_config.bos_token_id
        return ids

    def tower(self, which: str) -> Iterable[nn.Parameter]:
        """Parameters of the "image" tower or of the "text" decoder.

        Raises:
            ValueError: `which` is neither.
        """
        if which not in ("image", "text"):
            raise ValueError(f"Expected 'image' or 'text' as tower, but got {which!r}.")
        part = self.network.vision_model if which == "image" else self.network.text_decoder
        return list(part.parameters())

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config, tokenizer, pixel rule and safetensors, whole or not at all."""
        self.network.config.prompt = self.prompt
        write_model(
            folder, [self.network.save_pretrained, self.tokenizer.save_pretrained, self.pixel_rule.save], name=self.name
        )
