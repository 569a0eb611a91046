"""What the library itself costs a processor: training, attacks and evaluation where passes cost next to nothing.

    python benchmarks/host_time.py [--photos 256] [--batch-size 128] [--steps 10] [--rounds 3] [--only mat sga]
    python benchmarks/host_time.py --rounds 1 --only adaptive --profile

A GPU waits for this time wherever it is longer than the passes. The model reads 32 x 32 pixels by one linear layer and
words by another; the photos (drawn on the spot) have five captions each. Milliseconds are processor time of this
process, which computes in one thread: other work on the machine disturbs them little. Every round begins with a model
and an attack that have seen nothing, as an evaluation does; the median of the rounds is printed, of a training that of
its steps after the first two. The aims are what a GPU leaves room for. `--profile` also prints where the time goes.
"""

import os

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

import crossguard as cg
from crossguard.attacks import Thesaurus, make_attack
from crossguard.data import OneToManyPairs, Picture
from crossguard.evaluate.batches import in_order, pair_batch
from crossguard.models import PixelRule, TwoTowers
from crossguard.progress import Silent
from crossguard.training import Pictures

THREAT = cg.ThreatModel(image=cg.LInf(2 / 255), text=cg.WordEdits(1))
CAPTIONS, EDGE, WIDTH = 5, 32, 16
AIMS = {
    **{"step clean": 10.0, "step tecoa": 10.0, "step mat": 30.0, "step mat+": 40.0},
    **{"attack pgd": 0.3, "attack word-swap": 1.2, "attack sga": 4.0, "attack adaptive": 9.0},
    **{"evaluate clean": 0.6, "evaluate pgd": 1.0},
}
"""Milliseconds of a step of 128 pairs, and of an image with five captions."""
ADJECTIVES = ("small", "large", "red", "old", "young", "happy", "bright", "quiet", "busy", "empty", "wooden", "tall")
NOUNS = ("dog", "cat", "man", "woman", "child", "street", "house", "car", "boat", "horse", "tree", "table", "garden")
VERBS = ("runs", "jumps", "sits", "stands", "looks", "walks", "sleeps", "waits", "plays", "rests")
PLACES = ("near", "beside", "behind", "under", "above", "beyond")


class Words(nn.Module):
    """The mean of a text's word vectors."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.table = nn.Embedding(words, WIDTH)

    def forward(self, ids: Int64[Tensor, "texts length"], mask: Bool[Tensor, "texts length"]) -> Float[Tensor, "t d"]:
        return (self.table(ids) * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def draw_pairs(folder: Path, photos: int, *, size: tuple[int, int] = (64, 48)) -> OneToManyPairs:
    """Draw photos of a size into a folder, and write five different captions for each."""
    rng = np.random.default_rng(0)
    pictures, texts = [], dict[str, None]()
    for number in range(photos):
        path = folder / f"{number}.jpg"
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
        pictures.append(Picture(str(number), path))
        while len(texts) < CAPTIONS * (number + 1):
            a, b = rng.choice(ADJECTIVES, 2, replace=False)
            first, second, third = rng.choice(NOUNS, 3, replace=False)
            texts[f"a {a} {first} {rng.choice(VERBS)} {rng.choice(PLACES)} the {b} {second} and a {third}"] = None
    links = np.stack([np.arange(len(texts)) // CAPTIONS, np.arange(len(texts))], axis=1)
    return OneToManyPairs("drawn", "test", tuple(pictures), tuple(texts), links)


def build_tokenizer(pairs: OneToManyPairs) -> PreTrainedTokenizerFast:
    """A tokenizer that knows all words of the captions, and all that the thesaurus may bring."""
    source = Thesaurus()
    words = {word for text in pairs.texts for word in text.split()}
    words |= {candidate for word in words for candidate in source.of(word)}
    special = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "[MASK]"]
    known = {word: number for number, word in enumerate([*special, *sorted(words)])}
    fast = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(end, known[end]) for end in ("[BOS]", "[EOS]")]
    fast.post_processor = processors.TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=fast, **names)


def build_model(pairs: OneToManyPairs) -> TwoTowers:
    """Two towers of one linear layer each, with random weights."""
    tokenizer = build_tokenizer(pairs)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TwoTowers(
            nn.Sequential(nn.Flatten(), nn.Linear(3 * EDGE * EDGE, WIDTH)),
            Words(len(tokenizer)),
            tokenizer=tokenizer,
            pixel_rule=PixelRule((EDGE, EDGE), tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD)),
            context_length=32,
            name="host",
        ).eval()


class Clock(Silent):
    """Notes the processor time whenever a step is done, and shows nothing."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @contextmanager
    def task(self, title: str, *, total: int, done: int = 0) -> Iterator["Clock"]:
        yield self

    def advance(self, steps: int = 1, *, note: str = "") -> None:
        self.times.append(time.process_time())


def of_a_step(pairs: OneToManyPairs, defence: str, options: argparse.Namespace) -> float:
    """Milliseconds of a training step."""
    clock, model = Clock(), build_model(pairs)
    threat = None if defence == "clean" else THREAT if defence != "tecoa" else THREAT.only("image")
    cg.train(
        model,
        pairs,
        defence=defence,
        threat=threat,
        steps=options.steps + 2,
        batch_size=options.batch_size,
        pictures=Pictures(model, pairs),
        progress=clock,
        log_every=0,
    )
    return 1000 * statistics.median(np.diff(clock.times[-options.steps - 1 :]).tolist())


def of_an_attack(pairs: OneToManyPairs, name: str) -> float:
    """Milliseconds of an attack per image, with its captions; batches as an evaluation makes them."""
    model, attack, spent = build_model(pairs), make_attack(name), 0.0
    threat = THREAT.only("image") if name == "pgd" else THREAT.only("text") if name == "word-swap" else THREAT
    for ids in in_order(len(pairs.images), batch_size=64):
        batch = pair_batch(model, pairs, ids)
        start = time.process_time()
        attack(model, batch, threat=threat, seed=0)
        spent += time.process_time() - start
    return 1000 * spent / len(pairs.images)


def of_an_evaluation(pairs: OneToManyPairs, name: str) -> float:
    """Milliseconds of an evaluation per image."""
    model, start = build_model(pairs), time.process_time()
    asked = {} if name == "clean" else {"attack": name, "threat": THREAT.only("image")}
    cg.evaluate(model, pairs, task="retrieval", progress=Silent(), **asked)
    return 1000 * (time.process_time() - start) / len(pairs.images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=128, help="of a training step; the aims are for 128")
    parser.add_argument("--steps", type=int, default=10, help="that are measured, of each training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], help="what to measure, by words of the lines")
    parser.add_argument("--profile", action="store_true", help="print where the time of every line goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        pairs = draw_pairs(Path(folder), options.photos)
        measures: dict[str, Callable[[str], float]] = {
            "step": lambda name: of_a_step(pairs, name, options),
            "attack": lambda name: of_an_attack(pairs, name),
            "evaluate": lambda name: of_an_evaluation(pairs, name),
        }
        print(f"{'ms of one core':<20}{'measured':>10}{'aim':>8}{'x aim':>8}")
        for line, aim in AIMS.items():
            kind, name = line.split()
            if options.only and not {kind, name} & set(options.only):
                continue
            found = statistics.median(measures[kind](name) for _ in range(options.rounds))
            print(f"{line:<20}{found:>10.2f}{aim:>8.1f}{found / aim:>8.2f}", flush=True)
            if options.profile:
                with cProfile.Profile() as profile:
                    measures[kind](name)
                pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
