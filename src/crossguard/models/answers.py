"""Models that write and answer questions about a picture, through Transformers: what LLaVA and Qwen2.5-VL share."""

import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from crossguard.checks import shown, visible
from crossguard.models.base import Tokens, check_captions
from crossguard.models.pictures import ReadsPictures
from crossguard.models.pixels import PixelRule
from crossguard.models.storage import write_model

QUESTION = "{question}"
PROMPT = "Provide a short caption for this picture."


class Answers(ReadsPictures):
    """Base of models whose language model reads a picture's tokens in the place of a word.

    Pixels enter in [0, 1] and are normalised inside, so that gradients reach them; a picture is encoded once however
    many texts it comes with.

    Args:
        network: the Transformers model.
        tokenizer: its tokenizer, which knows the picture's word.
        pixel_rule: how photos become pixels.
        name: shown in tables and written into rows.
        template: how a question is put, with the picture's word and `{question}` in their places.
        prompt: the question that a caption answers.

    Attributes:
        image: the word that stands for a picture in texts.
        image_tokens: how many tokens a picture takes of the context.

    Raises:
        ValueError: a tokenizer without the picture's token, or a template without one of its places.
    """

    image: ClassVar[str]

    def __init__(
        self,
        network: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pixel_rule: PixelRule,
        name: str,
        template: str,
        prompt: str = PROMPT,
    ) -> None:
        super().__init__(pixel_rule)
        self.network, self.tokenizer, self.name = network, tokenizer, name
        self.prompt, self.template = prompt, template
        self.context_length = int(network.config.text_config.max_position_embeddings)
        if template.count(self.image) != 1 or template.count(QUESTION) != 1:
            raise ValueError(f"Expected a template with {self.image} and {QUESTION} once each, but got {template!r}.")
        if tokenizer.convert_tokens_to_ids(self.image) != network.config.image_token_id:
            raise ValueError(
                f"Expected a tokenizer whose {self.image} has id {network.config.image_token_id}, but it is "
                f"{tokenizer.convert_tokens_to_ids(self.image)}: give the right one as `tokenizer=`."
            )

    @property
    @abstractmethod
    def image_tokens(self) -> int:
        """How many tokens a picture takes of the context."""

    @property
    @abstractmethod
    def visual(self) -> nn.Module:
        """The image tower."""

    @abstractmethod
    def look(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images tokens channels"]:
        """Return what the language model reads of pictures in [0, 1]; differentiable."""

    @abstractmethod
    def pictures(
        self, pixels: Float[Tensor, "texts 3 height width"], ids: Int64[Tensor, "texts length"]
    ) -> dict[str, Tensor]:
        """Return a picture for each text as the network's `generate` takes them."""

    def positions(
        self, ids: Int64[Tensor, "texts length"], mask: Bool[Tensor, "texts length"]
    ) -> Int64[Tensor, "axes texts length"] | None:
        """Return where the language model is told that tokens stand; None for one after the other."""
        return None

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Tokenise what is written, with the end, padded at the right."""
        rows = [[*self._plain(text), int(self.tokenizer.eos_token_id)] for text in texts]
        return _padded(rows, self._padding, left=False)

    @property
    def _padding(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def _plain(self, text: str) -> list[int]:
        """The ids of what is written; the picture's word, which nobody can write, is left out."""
        ids: list[int] = self.tokenizer(text.replace(self.image, ""), add_special_tokens=False)["input_ids"]
        return ids

    def _asked(self, question: str) -> list[int]:
        """The ids of a question, its picture's places among them."""
        text = self.template.replace(QUESTION, question.replace(self.image, ""))
        ids: list[int] = self.tokenizer(text.replace(self.image, self.image * self.image_tokens))["input_ids"]
        if len(ids) >= self.context_length:
            raise ValueError(
                f"Expected a question that fits into {self.context_length} tokens with its picture's "
                f"{self.image_tokens}, but {shown(question)} makes {len(ids)}."
            )
        return ids

    def caption_loss(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        captions: Sequence[str],
        *,
        rows: Int64[Tensor, " captions"] | None = None,
    ) -> Float[Tensor, " captions"]:
        """Return each caption's mean cross-entropy per token, the end included, as an answer to the prompt.

        Args:
            pixels: in [0, 1]; the loss is differentiable in them.
            captions: one per image, or as `rows` says.
            rows: which image each caption belongs to; None: one each.

        Raises:
            ValueError: other than one caption per image, or per row.
        """
        check_captions(pixels, captions, rows)
        return self.answer_loss(pixels, [self.prompt] * len(captions), captions, rows=rows)

    def answer_loss(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        questions: Sequence[str],
        answers: Sequence[str],
        *,
        rows: Int64[Tensor, " answers"] | None = None,
    ) -> Float[Tensor, " answers"]:
        """Return each answer's mean cross-entropy per token, the end included, in nats; differentiable in the pixels.

        Args:
            pixels: in [0, 1].
            questions: one per answer.
            answers: the answers.
            rows: which image each is about; None: one each.
        """
        asked = [self._asked(question) for question in questions]
        written = [[*self._plain(answer), int(self.tokenizer.eos_token_id)] for answer in answers]
        tokens = _padded([a + w for a, w in zip(asked, written, strict=True)], self._padding, left=False)
        tokens = tokens.to(pixels.device)
        states = self._embedded(tokens.ids, self.look(pixels), rows)
        output = self.network.model.language_model(
            inputs_embeds=states,
            attention_mask=tokens.mask.long(),
            position_ids=self.positions(tokens.ids, tokens.mask),
        )
        logits = self.network.lm_head(output.last_hidden_state[:, :-1]).float()
        place = torch.arange(tokens.ids.shape[1] - 1, device=pixels.device)
        begin = torch.tensor([len(ids) - 1 for ids in asked], device=pixels.device)
        counted = tokens.mask[:, 1:] & (place >= begin[:, None])
        surprise = cross_entropy(logits.transpose(1, 2), tokens.ids[:, 1:], reduction="none")
        return (surprise * counted).sum(dim=1) / counted.sum(dim=1)

    def _embedded(
        self, ids: Int64[Tensor, "texts length"], seen: Float[Tensor, "images tokens channels"], rows: Tensor | None
    ) -> Float[Tensor, "texts length channels"]:
        """Return the tokens' embeddings with what the tower saw in the picture's places."""
        embedded: Tensor = self.network.get_input_embeddings()(ids)
        there = (ids == self.network.config.image_token_id).unsqueeze(-1)
        own = seen if rows is None else seen[rows.to(seen.device)]
        return embedded.masked_scatter(there, own.to(embedded.dtype))

    def generate(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        *,
        beams: int = 3,
        min_length: int = 5,
        max_length: int = 20,
    ) -> list[str]:
        """Return one caption per image by beam search; the lengths count what is written, and the end.

        Args:
            pixels: in [0, 1].
            beams: hypotheses kept per image.
            min_length: fewest tokens.
            max_length: most tokens.
        """
        return self.answer(
            pixels, [self.prompt] * len(pixels), beams=beams, min_length=min_length, max_length=max_length
        )

    @torch.no_grad()
    def answer(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        questions: Sequence[str],
        *,
        rows: Int64[Tensor, " questions"] | None = None,
        beams: int = 1,
        min_length: int = 1,
        max_length: int = 32,
    ) -> list[str]:
        """Return one answer per question.

        Args:
            pixels: in [0, 1].
            questions: one per image, or as `rows` says.
            rows: which image each question is about; None: one each.
            beams: hypotheses kept per question.
            min_length: fewest tokens, the end included.
            max_length: most tokens.
        """
        tokens = _padded([self._asked(question) for question in questions], self._padding, left=True).to(pixels.device)
        shown = pixels if rows is None else pixels[rows.to(pixels.device)]
        written = self.network.generate(
            input_ids=tokens.ids,
            attention_mask=tokens.mask.long(),
            **self.pictures(shown, tokens.ids),
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self._padding,
            num_beams=beams,
            do_sample=False,
            min_new_tokens=min_length,
            max_new_tokens=max_length,
        )
        decoded = self.tokenizer.batch_decode(written[:, tokens.ids.shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in decoded]

    def tower(self, which: str) -> Iterable[nn.Parameter]:
        """Parameters of the "image" tower, or of the "text" side: all others.

        Raises:
            ValueError: `which` is neither.
        """
        if which not in ("image", "text"):
            raise ValueError(f"Expected 'image' or 'text' as tower, but got {which!r}.")
        seeing = list(self.visual.parameters())
        if which == "image":
            return seeing
        own = {id(parameter) for parameter in seeing}
        return [parameter for parameter in self.network.parameters() if id(parameter) not in own]

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config, tokenizer, pixel rule and safetensors, whole or not at all."""
        self.network.config.prompt, self.network.config.asking = self.prompt, self.template
        write_model(
            folder, [self.network.save_pretrained, self.tokenizer.save_pretrained, self.pixel_rule.save], name=self.name
        )


def read_template(folder: Path, tokenizer: Any, *, default: str) -> str:
    """Return how a checkpoint's own chat template puts a question about one picture; `default` where it has none.

    Raises:
        ValueError: a template that cannot be read.
    """
    told = getattr(tokenizer, "chat_template", None)
    try:
        for name in ("chat_template.json", "processor_config.json"):
            if not told and (folder / name).is_file():
                told = json.loads((folder / name).read_text(encoding="utf-8")).get("chat_template")
        if not told and (folder / "chat_template.jinja").is_file():
            told = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        if not told:
            return default
        content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        rendered: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], chat_template=told, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # templates are programs of others, run in a sandbox
        raise ValueError(f"Expected a chat template in {visible(folder)}, but it could not be read: {error}") from error
    return rendered


def _padded(rows: Sequence[Sequence[int]], padding: int, *, left: bool) -> Tokens:
    ids = torch.full((len(rows), max(map(len, rows))), padding)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for place, row in enumerate(rows):
        where = slice(ids.shape[1] - len(row), None) if left else slice(len(row))
        ids[place, where] = torch.tensor(row)
        mask[place, where] = True
    return Tokens(ids, mask)
