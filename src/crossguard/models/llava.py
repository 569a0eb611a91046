"""LLaVA-1.5 through Transformers: a CLIP tower, a projector and a language model that writes and answers."""

import copy
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerBase

from crossguard.checks import visible
from crossguard.models.base import Tokens, check_captions
from crossguard.models.clip import CLIP
from crossguard.models.hub import local_folder
from crossguard.models.pictures import ReadsPictures
from crossguard.models.pixels import PixelRule
from crossguard.models.storage import load_transformers, told_name, write_model
from crossguard.models.supplied import NOTHING, Supplied

QUESTION, IMAGE = "{question}", "<image>"
TEMPLATE = f"USER: {IMAGE}\n{QUESTION} ASSISTANT:"
"""How LLaVA-1.5 is asked, where its files do not say."""
PROMPT = "Provide a short caption for this picture."


class Llava(ReadsPictures):
    """A model of LLaVA-1.5's layout (Liu et al., 2024): it writes captions and answers questions about a picture.

    Pixels enter in [0, 1] and are normalised inside, so that gradients reach them; a picture is encoded once however
    many texts it comes with.

    Args:
        network: the Transformers model.
        tokenizer: its tokenizer, which knows the word `<image>`.
        pixel_rule: how photos become pixels.
        name: shown in tables and written into rows.
        prompt: the question that a caption answers.
        template: how a question is put, with `<image>` and `{question}` in their places.

    Raises:
        ValueError: a tokenizer without the image's token, or a template without one of its places.
    """

    def __init__(
        self,
        network: LlavaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pixel_rule: PixelRule,
        name: str,
        prompt: str = PROMPT,
        template: str = TEMPLATE,
    ) -> None:
        super().__init__(pixel_rule)
        self.network, self.tokenizer, self.name = network, tokenizer, name
        self.prompt, self.template = prompt, template
        self.context_length = int(network.config.text_config.max_position_embeddings)
        if template.count(IMAGE) != 1 or template.count(QUESTION) != 1:
            raise ValueError(f"Expected a template with {IMAGE} and {QUESTION} once each, but got {template!r}.")
        if tokenizer.convert_tokens_to_ids(IMAGE) != network.config.image_token_id:
            raise ValueError(
                f"Expected a tokenizer whose {IMAGE} has id {network.config.image_token_id}, but it is "
                f"{tokenizer.convert_tokens_to_ids(IMAGE)}: give the right one as `tokenizer=`."
            )

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str,
        *,
        name: str | None = None,
        offline: bool = False,
        supplied: Supplied = NOTHING,
        vision_tower: CLIP | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> "Llava":
        """Load a local folder in Transformers' layout, or a hub id such as "llava-hf/llava-1.5-7b-hf".

        Args:
            source: the folder or hub id.
            name: shown in tables; default: the folder's or hub id's last part.
            offline: look only at local files.
            supplied: what the files lack.
            vision_tower: a CLIP whose image tower takes the place of the model's own, see `with_vision_tower`.
            dtype: of the weights; bfloat16 halves their memory.

        Raises:
            ValueError: the checkpoint has missing or surplus weights, or lacks tokenizer or preprocessing.
        """
        folder = local_folder(source, offline=offline)
        config = LlavaConfig.from_pretrained(str(folder), local_files_only=True)
        tokenizer = supplied.tokenizer_for(folder)
        rule = supplied.pixel_rule_for(folder, size=config.vision_config.image_size)
        network = load_transformers(LlavaForConditionalGeneration, folder, offline=True, family="LLaVA", dtype=dtype)
        model = cls(
            network,
            tokenizer,
            pixel_rule=rule,
            name=name or told_name(source),
            prompt=getattr(network.config, "prompt", PROMPT),
            template=getattr(network.config, "asking", None) or read_template(folder, tokenizer),
        ).eval()
        return model if vision_tower is None else model.with_vision_tower(vision_tower)

    def with_vision_tower(self, clip: CLIP) -> "Llava":
        """Return a copy that looks through the image tower of a CLIP, as robust towers are put into LLaVA.

        Its preprocessing comes with it; the projector and the language model stay.

        Raises:
            ValueError: a tower of other widths than the projector reads, or with fewer layers than are asked for.
        """
        tower, own = clip.network.vision_model, self.network.model.vision_tower
        asked = self.network.config.vision_feature_layer
        if tower.config.hidden_size != own.config.hidden_size:
            raise ValueError(
                f"Expected a tower of width {own.config.hidden_size}, which the projector of {self.name!r} reads, but "
                f"that of {clip.name!r} has {tower.config.hidden_size}."
            )
        deepest = max(abs(layer) for layer in ([asked] if isinstance(asked, int) else asked))
        if tower.config.num_hidden_layers + 1 < deepest:
            raise ValueError(
                f"Expected a tower with layer {asked}, but that of {clip.name!r} has {tower.config.num_hidden_layers}."
            )
        made = copy.deepcopy(self)
        made.network.model.vision_tower = copy.deepcopy(tower).to(self.network.dtype)
        made.network.config.vision_config = copy.deepcopy(tower.config)
        made.set_pixel_rule(clip.pixel_rule)
        made.name = f"{self.name} through {clip.name}"
        return made.eval()

    @property
    def image_tokens(self) -> int:
        """How many tokens a picture takes of the context."""
        config = self.network.config
        places = (self.image_size[0] // config.vision_config.patch_size) ** 2
        return places + (config.vision_feature_select_strategy != "default")

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Tokenise what is written, with the end, padded at the right."""
        rows = [[*self._plain(text), int(self.tokenizer.eos_token_id)] for text in texts]
        return _padded(rows, self._padding, left=False)

    @property
    def _padding(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _asked(self, question: str) -> list[int]:
        """The ids of a question, its picture's places among them."""
        text = self.template.replace(QUESTION, question.replace(IMAGE, "")).replace(IMAGE, IMAGE * self.image_tokens)
        ids: list[int] = self.tokenizer(text)["input_ids"]
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
        states = self._embedded(tokens.ids, self._look(pixels), rows)
        output = self.network.model.language_model(inputs_embeds=states, attention_mask=tokens.mask.long())
        logits = self.network.lm_head(output.last_hidden_state[:, :-1]).float()
        place = torch.arange(tokens.ids.shape[1] - 1, device=pixels.device)
        begin = torch.tensor([len(ids) - 1 for ids in asked], device=pixels.device)
        counted = tokens.mask[:, 1:] & (place >= begin[:, None])
        surprise = cross_entropy(logits.transpose(1, 2), tokens.ids[:, 1:], reduction="none")
        return (surprise * counted).sum(dim=1) / counted.sum(dim=1)

    def _look(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images tokens channels"]:
        normal = self.normalise(pixels).to(self.network.dtype)
        return torch.stack(list(self.network.model.get_image_features(pixel_values=normal).pooler_output))

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
        normal = self.normalise(pixels).to(self.network.dtype)
        written = self.network.generate(
            input_ids=tokens.ids,
            attention_mask=tokens.mask.long(),
            pixel_values=normal if rows is None else normal[rows.to(normal.device)],
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
        """Parameters of the "image" tower, or of the "text" side: projector and language model.

        Raises:
            ValueError: `which` is neither.
        """
        if which not in ("image", "text"):
            raise ValueError(f"Expected 'image' or 'text' as tower, but got {which!r}.")
        seeing = list(self.network.model.vision_tower.parameters())
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


def read_template(folder: Path, tokenizer: Any) -> str:
    """Return how a checkpoint's own chat template puts a question about one picture; LLaVA-1.5's where it has none.

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
            return TEMPLATE
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
