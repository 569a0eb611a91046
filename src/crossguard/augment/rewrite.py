"""Texts rewritten by any causal language model of Transformers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from crossguard.augment.base import Made, MadeText, Request, Side, contents, sample_ids
from crossguard.augment.sampling import OwnChance, check_sampling, generation_options
from crossguard.data import OneToManyPairs

PROMPT = (
    "Write the image caption in other words. Keep its meaning, add nothing, and answer with one line.\n"
    "Caption: {text}\n"
    "In other words:"
)
_OPENING = re.compile(r"^(?:[-*•]|\d+[.)])\s+|^(?:caption|in other words|answer)\s*:\s*", re.IGNORECASE)


class Rewrite:
    """Asks a language model for other words, by sampling; its first line is the new text.

    A tokenizer with a chat template gets the prompt as a user's message, others get it as it is. Blank answers and
    answers that repeat the text or an earlier one are left out.

    Args:
        model: folder or hub id of a Transformers causal language model.
        prompt: what is asked; "{text}" stands for the text.
        max_new_tokens: the most tokens of an answer.
        temperature: spread of the sampling, above 0.
        top_p: share of probability that tokens are drawn from.
        offline: look only at local files.

    Raises:
        ValueError: an option out of range, a prompt without "{text}", or a model that cannot be loaded.
    """

    name = "rewrite"
    per: Side = "texts"
    block = 128

    def __init__(
        self,
        *,
        model: Path | str,
        prompt: str = PROMPT,
        max_new_tokens: int = 48,
        temperature: float | int = 1.0,
        top_p: float | int = 0.9,
        offline: bool = False,
    ) -> None:
        check_sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
        if "{text}" not in prompt:
            raise ValueError(f'Expected a `prompt` with "{{text}}" in it, but got {prompt!r}.')
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=offline, padding_side="left")
            self._network: Any = AutoModelForCausalLM.from_pretrained(
                str(model), local_files_only=offline, use_safetensors=True
            ).eval()
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"Expected a causal language model in {model}, but got: {error}") from error
        self._network.requires_grad_(False)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token
        self.prompt = prompt
        self.options: Mapping[str, Any] = {
            "model": str(model),
            "prompt": prompt,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            **contents(model),
        }

    def make_texts(self, pairs: OneToManyPairs, items: Sequence[int], request: Request) -> list[list[MadeText]]:
        """Return, per text, what the model makes of it."""
        texts = [pairs.texts[item] for item in items]
        ids = sample_ids(self.name, texts, request.count)
        answers: list[str] = []
        for at in range(0, len(ids), request.batch_size):
            rows = range(at, min(at + request.batch_size, len(ids)))
            chance = OwnChance(
                ids[at : at + len(rows)],
                seed=request.seed,
                temperature=self.options["temperature"],
                top_p=self.options["top_p"],
            )
            answers += self._ask([texts[row // request.count] for row in rows], chance, request.device)
        made = []
        for place, item in enumerate(items):
            own = answers[place * request.count : (place + 1) * request.count]
            lines = dict.fromkeys(first_line(answer) for answer in own)
            made.append([Made(line, texts=(item,)) for line in lines if line and line != texts[place]])
        return made

    @torch.inference_mode()
    def _ask(self, texts: list[str], chance: OwnChance, device: torch.device) -> list[str]:
        self._network.to(device)
        prompts = [self._prompt(text) for text in texts]
        encoded = self._tokenizer(
            prompts,
            padding=True,
            return_tensors="pt",
            return_token_type_ids=False,
            add_special_tokens=self._tokenizer.chat_template is None,
        ).to(device)
        options = generation_options(self._network, chance, max_new_tokens=self.options["max_new_tokens"])
        options["generation_config"].pad_token_id = self._tokenizer.pad_token_id
        output = self._network.generate(**encoded, **options)
        new = output[:, encoded["input_ids"].shape[1] :]
        answers: list[str] = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        return answers

    def _prompt(self, text: str) -> str:
        prompt = self.prompt.replace("{text}", text)
        if self._tokenizer.chat_template is None:
            return prompt
        message = [{"role": "user", "content": prompt}]
        return str(self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))


def first_line(answer: str) -> str:
    """Return the first line that is not blank, without list marks, labels and quotation marks around it.

    Example:
        >>> first_line('\\n1. "A couch in red."\\nIs there anything else?')
        'A couch in red.'
    """
    line = next((line.strip() for line in answer.splitlines() if line.strip()), "")
    line = _OPENING.sub("", line).strip()
    quoted = len(line) > 1 and (line[0], line[-1]) in {('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’")}
    return " ".join((line[1:-1] if quoted else line).split())
