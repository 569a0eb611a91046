"""Captions by BLIP (Li et al., ICML 2022) through Transformers: `I2T` of MAT+."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessorPil

from crossguard.augment.base import Made, MadeText, Request, Side, contents, sample_ids
from crossguard.augment.sampling import OwnChance, check_sampling, generation_options
from crossguard.data import OneToManyPairs

MODEL = "Salesforce/blip-image-captioning-base"


class Captioner:
    """Describes every picture several times, by nucleus sampling as BLIP's own training captions were made.

    A picture is encoded once for all of its captions. Captions that are blank or repeat an earlier one are left out.

    Args:
        model: folder or hub id of a BLIP captioner in Transformers' layout.
        prompt: what each caption begins with; it is cut off the result.
        max_new_tokens: the most tokens after the prompt.
        temperature: spread of the sampling, above 0.
        top_p: share of probability that tokens are drawn from.
        offline: look only at local files.

    Raises:
        ValueError: an option out of range, or a model that cannot be loaded or is incomplete.
    """

    name = "captioner"
    per: Side = "images"
    block = 128

    def __init__(
        self,
        *,
        model: Path | str = MODEL,
        prompt: str = "a picture of",
        max_new_tokens: int = 20,
        temperature: float | int = 1.0,
        top_p: float | int = 0.9,
        offline: bool = False,
    ) -> None:
        check_sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=offline)
            self._processor = BlipImageProcessorPil.from_pretrained(str(model), local_files_only=offline)
            network, report = BlipForConditionalGeneration.from_pretrained(
                str(model), local_files_only=offline, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"Expected a BLIP captioner in {model}, but got: {error}") from error
        for key in ("missing_keys", "mismatched_keys"):
            if report[key]:
                raise ValueError(
                    f"Expected a whole BLIP captioner in {model}, but got {key}: {sorted(report[key])[:5]}."
                )
        self._network: Any = network.eval().requires_grad_(False)
        self.options: Mapping[str, Any] = {
            "model": str(model),
            "prompt": prompt,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            **contents(model),
        }

    def make_texts(self, pairs: OneToManyPairs, items: Sequence[int], request: Request) -> list[list[MadeText]]:
        """Return, per picture, its captions."""
        made: list[list[MadeText]] = []
        together = max(1, request.batch_size // request.count)
        for at in range(0, len(items), together):
            chunk = items[at : at + together]
            ids = sample_ids(self.name, [pairs.images[item].key for item in chunk], request.count)
            chance = OwnChance(
                ids, seed=request.seed, temperature=self.options["temperature"], top_p=self.options["top_p"]
            )
            captions = self._describe([pairs.image(item) for item in chunk], chance, request)
            for place, item in enumerate(chunk):
                own = dict.fromkeys(captions[place * request.count : (place + 1) * request.count])
                made.append([Made(caption, images=(item,)) for caption in own if caption])
        return made

    @torch.inference_mode()
    def _describe(self, images: list[Image.Image], chance: OwnChance, request: Request) -> list[str]:
        network = self._network.to(request.device)
        pixels = self._processor(images, return_tensors="pt")["pixel_values"].to(request.device)
        seen = network.vision_model(pixel_values=pixels)[0].repeat_interleave(request.count, dim=0)
        # As the model was trained: the begin token in the place of [CLS], no [SEP] at the end of the prompt.
        prompt = self._tokenizer(self.options["prompt"], return_tensors="pt")["input_ids"][:, :-1].clone()
        prompt[:, 0] = network.config.text_config.bos_token_id
        start = prompt.expand(len(seen), -1).to(request.device)
        options = generation_options(network.text_decoder, chance, max_new_tokens=self.options["max_new_tokens"])
        options["generation_config"].eos_token_id = network.config.text_config.sep_token_id
        options["generation_config"].pad_token_id = network.config.text_config.pad_token_id
        output = network.text_decoder.generate(
            input_ids=start,
            attention_mask=torch.ones_like(start),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=request.device),
            **options,
        )
        decoded = self._tokenizer.batch_decode(output[:, start.shape[1] :], skip_special_tokens=True)
        return [" ".join(caption.split()) for caption in decoded]
