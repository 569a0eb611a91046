"""Speed of attacks, as ratios of CPU seconds, each between two measurements one after the other.

    python benchmarks/attacks_speed.py [--captions 512] [--images 64] [--rounds 5] [--threads 1] [--device cuda]

CPU seconds of the process: other work on the machine disturbs them little. Ratios are taken anew in every round; the
least, the median and the greatest are printed.

1. word-swap, batched, against the same attack caption by caption (one forward per caption for the masked variants, one
   per visited word; and one per variant), at identical outputs, on captions of the emoji data.
2. One step of pgd over one bare forward and backward of the image tower.
3. sga against a straightforward implementation that takes 8 images at a time and goes caption by caption, and against
   the passes of its views alone, which bound what any implementation can save.
4. word-swap with words ranked by gradients, or candidates shortlisted by them: time, and strength beside masking.
5. How the time of word-swap grows with captions and with words, and that of sga with images.
6. How much memory the process took at its peak.
7. With --device: images per second of pgd and sga on a CLIP ViT-B/16 of random weights there, in float32 and bfloat16,
   and as a share of the rate of a bare forward and backward. Nothing else is measured then.

The model is a CLIP with random weights and as many as emoji-clip's order (48 x 48 pixels, 3 layers of 128 and 192):
speed does not ask what the weights say.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "attacks"))
from swap_reference import swap_words_by_caption, swap_words_slowly
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from crossguard.attacks import LInfBall, Thesaurus, frozen, image_loss, make_attack, maximise, swap_words
from crossguard.attacks.text_score import EmbeddingScore
from crossguard.attacks.views import rescale
from crossguard.data import OneToManyPairs, PairBatch, links_among, load_pairs
from crossguard.models import CLIP, cosine
from crossguard.threat import LInf, ThreatModel, WordEdits

EPS, STEPS = 2 / 255, 10


def build_model(pairs: OneToManyPairs, thesaurus: Thesaurus) -> CLIP:
    words = {word.strip(",").lower() for text in pairs.texts for word in text.split()}
    words |= {candidate for word in set(words) for candidate in thesaurus.of(word)} | {","}
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[BOS]", "[EOS]", "[MASK]", *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[BOS]", vocabulary["[BOS]"]), ("[EOS]", vocabulary["[EOS]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=ends)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        mask_token="[MASK]",
    )
    return CLIP.from_sizes(
        fast,
        image_size=48,
        patch_size=6,
        vision_width=192,
        vision_layers=3,
        text_width=128,
        text_layers=3,
        context_length=32,
        embed_dim=128,
        seed=0,
        name="speed",
    )


def build_batch(model: CLIP, pairs: OneToManyPairs, *, images: int, captions: int | None = None) -> PairBatch:
    image_ids = np.arange(images)
    text_ids = np.unique(np.concatenate([pairs.texts_of(int(i)) for i in image_ids]))[:captions]
    return PairBatch(
        pixels=model.preprocess([pairs.image(int(i)) for i in image_ids]),
        texts=tuple(pairs.texts[int(j)] for j in text_ids),
        links=torch.from_numpy(links_among(pairs, image_ids, text_ids)),
        image_ids=torch.from_numpy(image_ids),
        text_ids=torch.from_numpy(text_ids),
    )


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of the process, all threads together."""
    start = time.process_time()
    run()
    return time.process_time() - start


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The least, the median and the greatest."""
    return " / ".join(f"{value:.{digits}f}" for value in np.quantile(values, (0, 0.5, 1)))


def word_swap(model: CLIP, batch: PairBatch, rounds: int) -> None:
    features = model.encode_image(batch.pixels).detach()
    given = (model, batch.texts, features, batch.positives)
    references = {"one forward per word": swap_words_by_caption, "one forward per variant": swap_words_slowly}
    for words in (1, 2):
        options = {"words": words, "source": Thesaurus()}
        fast = swap_words(*given, **options)
        same = {name: reference(*given, **options) == fast for name, reference in references.items()}
        times: dict[str, list[float]] = {name: [] for name in ("batched", *references)}
        for _ in range(rounds):
            times["batched"].append(seconds(partial(swap_words, *given, **options)))
            for name, reference in references.items():
                times[name].append(seconds(partial(reference, *given, **options)))
        print(f"word-swap, {len(batch.texts)} captions, {words} word(s): {np.median(times['batched']):.2f} s batched")
        for name in references:
            ratios = np.divide(times[name], times["batched"])
            print(f"  caption by caption, {name}: {spread(ratios)} x, identical: {same[name]}")


def gradient_ranking(model: CLIP, batch: PairBatch) -> None:
    features = model.encode_image(batch.pixels).detach()
    score = EmbeddingScore(model, features, batch.positives, among_all=False)
    owners = list(range(len(batch.texts)))
    clean = score(batch.texts, owners)
    for options in ({}, {"ranking": "gradient"}, {"shortlist": 3}, {"ranking": "gradient", "shortlist": 3}):
        run = partial(swap_words, model, batch.texts, features, batch.positives, words=1, source=Thesaurus(), **options)
        fall = float((clean - score(run(), owners)).mean())
        print(
            f"word-swap, {options or 'words ranked by masking'}: {seconds(run):.2f} s, mean fall of cosine {fall:.5f}"
        )


def bare(model: CLIP, pixels: torch.Tensor) -> None:
    """Run the image tower forward and backward, as any gradient step must."""
    leaf = pixels.clone().requires_grad_(True)
    torch.autograd.grad(model.encode_image(leaf).float().sum(), leaf)


def pgd_step(model: CLIP, batch: PairBatch, rounds: int) -> None:
    loss = image_loss(model, batch, batch.texts)

    def passes() -> None:
        for _ in range(STEPS):
            bare(model, batch.pixels)

    def attack() -> None:
        maximise(loss, LInfBall(batch.pixels, EPS), steps=STEPS, step_size=EPS / 4, keep_best=False)

    passes(), attack()
    ratios = [seconds(attack) / seconds(passes) for _ in range(rounds)]
    print(f"pgd step over a bare forward and backward, {len(batch.pixels)} images: {spread(ratios, 2)} x")


def plain_sga(model: CLIP, batch: PairBatch, source: Thesaurus) -> None:
    """SGA as the scripts of the field run it: 8 images at a time, every caption alone, no cached features."""
    positives = batch.positives
    for at in range(0, len(batch.pixels), 8):
        clean = batch.pixels[at : at + 8]
        columns = positives[at : at + 8].any(dim=0).nonzero().squeeze(1)
        own, texts = positives[at : at + 8][:, columns], [batch.texts[int(j)] for j in columns]
        swapped = swap_words_by_caption(model, texts, model.encode_image(clean).detach(), own, words=1, source=source)
        pixels = clean
        for _ in range(STEPS):
            leaf = pixels.clone().requires_grad_(True)
            views = [leaf]
            for scale in (0.5, 0.75, 1.25, 1.5):
                size = int(scale * clean.shape[-1])
                views.append(rescale(leaf, 0.05 * torch.randn(len(clean), 3, size, size)))
            features = model.encode_text(swapped).detach()
            losses = [-(cosine(model.encode_image(view), features) * own).sum() for view in views]
            (gradient,) = torch.autograd.grad(sum(losses), leaf)
            pixels = (pixels + 0.5 / 255 * gradient.sign()).clamp(clean - EPS, clean + EPS).clamp(0, 1)
        swap_words_by_caption(model, texts, model.encode_image(pixels).detach(), own, words=1, source=source)


def sga(model: CLIP, batch: PairBatch, rounds: int) -> None:
    attack, threat = make_attack("sga"), ThreatModel(image=LInf(EPS), text=WordEdits(1))

    def views_alone() -> None:
        for _ in range(5 * STEPS):
            bare(model, batch.pixels)

    runs = (lambda: attack(model, batch, threat=threat, seed=0), lambda: plain_sga(model, batch, Thesaurus()))
    fast, plain, floor = np.transpose([[seconds(run) for run in (*runs, views_alone)] for _ in range(rounds)])
    print(
        f"sga, {len(batch.pixels)} images x {len(batch.texts) / len(batch.pixels):.1f} captions: "
        f"{np.median(fast):.2f} s, plain over it {spread(plain / fast, 2)} x\n"
        f"  plain over the passes of its {5 * STEPS} views alone, which bound what anything can save: "
        f"{spread(plain / floor, 2)} x"
    )


def growth(model: CLIP, batch: PairBatch) -> None:
    features = model.encode_image(batch.pixels).detach()
    for share in (0.25, 0.5, 1.0):
        n = int(share * len(batch.texts))
        row = [
            seconds(
                lambda n=n, w=w: swap_words(
                    model, batch.texts[:n], features, batch.positives[:, :n], words=w, source=Thesaurus()
                )
            )
            for w in (1, 2, 4)
        ]
        print(f"word-swap of {n} captions, 1 / 2 / 4 words: " + " / ".join(f"{t:.2f}" for t in row) + " s")


def growth_of_sga(model: CLIP, pairs: OneToManyPairs, images: int) -> None:
    attack, threat = make_attack("sga"), ThreatModel(image=LInf(EPS), text=WordEdits(1))
    for n in (max(1, images // 4), max(1, images // 2), images):
        batch = build_batch(model, pairs, images=n)
        took = seconds(lambda batch=batch: attack(model, batch, threat=threat, seed=0))
        print(f"sga of {n} images, {len(batch.texts)} captions: {took:.2f} s")


def on_device(tokenizer: PreTrainedTokenizerFast, pairs: OneToManyPairs, *, images: int, device: torch.device) -> None:
    """Rates of attacks on the ViT-B/16 of CLIP's paper beside the bare rate of its image tower."""
    sizes = {"image_size": 224, "patch_size": 16, "vision_width": 768, "vision_layers": 12}
    sizes |= {"text_width": 512, "text_layers": 12, "context_length": 77, "embed_dim": 512}
    model = CLIP.from_sizes(tokenizer, **sizes, seed=0, name="ViT-B/16")
    batch = build_batch(model, pairs, images=images).to(device)
    model.to(device)
    threat = ThreatModel(image=LInf(EPS), text=WordEdits(1))

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def rate(run: Callable[[], object]) -> float:
        run(), wait()
        start = time.perf_counter()
        run(), wait()
        return images / (time.perf_counter() - start)

    for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):

        def precision(_: object = None, dtype: torch.dtype | None = dtype) -> AbstractContextManager[object]:
            return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)

        with frozen(model), patch("crossguard.attacks.base.fast_precision", precision):
            with precision():
                top = rate(partial(bare, model, batch.pixels))
            print(f"{name}: bare forward and backward {top:.1f} images/s")
            for built, part, passes in (
                (make_attack("pgd"), threat.only("image"), STEPS),
                (make_attack("sga"), threat, 5 * STEPS),
            ):
                got = rate(lambda built=built, part=part: built(model, batch, threat=part, seed=0))
                print(f"{name}: {built.name} {got:.2f} images/s, {passes * got / top:.2f} of the bare rate per pass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=512)
    parser.add_argument("--images", type=int, default=64, help="for pgd and sga")
    parser.add_argument("--rounds", type=int, default=5, help="in which ratios are taken anew")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", help="measure a ViT-B/16 there, e.g. cuda, and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = load_pairs("emoji", split="test")
    model = build_model(pairs, Thesaurus())
    if options.device is not None:
        on_device(model.tokenizer, pairs, images=options.images, device=torch.device(options.device))
        return
    print(f"{sum(p.numel() for p in model.parameters()):,} weights, {options.threads} threads")
    captions = build_batch(model, pairs, images=len(pairs.images), captions=options.captions)
    images = build_batch(model, pairs, images=options.images)
    with frozen(model):
        word_swap(model, captions, options.rounds)
        gradient_ranking(model, captions)
        pgd_step(model, images, options.rounds)
        sga(model, images, options.rounds)
        growth(model, captions)
        growth_of_sga(model, pairs, options.images)
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
