"""Retrieval at the size of COCO's test split: loading, ranking and re-ranking.

    python benchmarks/retrieval_scale.py [--parts load rank rerank] [--size tiny|vit-b] [--device cpu]

load    An annotation file of 5,000 images and 25,010 captions (files of one pixel): CPU time and memory of loading it,
        with and without decoding every image.
rank    Ranks of 5,000 random image embeddings against 25,010 texts in both directions: CPU time and peak memory, and
        what the whole score matrix would take.
rerank  Pairs that ALBEF matches per second, as evaluation does it (each pair once, each image's keys once, texts
        without padding), against scoring both directions separately, query by query, as the authors' code does. The
        pairs are the same, and so are the scores, to the tolerance that is printed. `--size vit-b` is the released
        size at 384 pixels.

Every part runs in a process of its own, so that peaks of memory do not mix. Times are CPU times on the CPU and by the
clock on other devices.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

IMAGES, TEXTS = 5000, 25010


def peak() -> float:
    """Return the largest memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(work: Callable[[], object], device: str = "cpu") -> float:
    """Return seconds: of the CPU, or by the clock where another device works."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    begun = clock()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - begun


def load() -> None:
    """Load a COCO-sized annotation file."""
    from crossguard.data import load_pairs

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "val2014").mkdir()
        Image.new("RGB", (1, 1)).save(home / "one.jpg")
        content = (home / "one.jpg").read_bytes()
        rows = []
        for number in range(IMAGES):
            name = f"val2014/COCO_val2014_{number:012}.jpg"
            (home / name).write_bytes(content)
            count = 6 if number < TEXTS - 5 * IMAGES else 5
            captions = [
                f"A person number {number} rides a bicycle down street {text} of a city ." for text in range(count)
            ]
            rows.append({"image": name, "caption": captions})
        (home / "coco_test.json").write_text(json.dumps(rows))
        before = peak()
        kept = []
        seconds = timed(lambda: kept.append(load_pairs("coco", root=home)))
        print(f"load: {len(kept[0].images)} images, {len(kept[0].texts)} texts in {seconds:.2f} s CPU,", end=" ")
        print(f"+{peak() - before:.0f} MiB")
        print(f"      decoding every image too: {timed(lambda: load_pairs('coco', root=home, verify=True)):.2f} s CPU")


def rank() -> None:
    """Rank COCO-sized random embeddings."""
    from crossguard.evaluate import embedding_ranks

    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(size, 512, generator=generator) for size in (IMAGES, TEXTS))
    links = torch.stack([torch.arange(TEXTS) % IMAGES, torch.arange(TEXTS)], dim=1)
    before = peak()
    seconds = timed(lambda: (embedding_ranks(images, texts, links), embedding_ranks(texts, images, links.flip(1))))
    whole = IMAGES * TEXTS * 4 / 2**20
    print(f"rank: {seconds:.1f} s CPU, peak +{peak() - before:.0f} MiB (the score matrix alone: {whole:.0f} MiB)")


def rerank(size: str, device: str) -> None:
    """Match pairs as evaluation does, and as the authors' code does."""
    from crossguard.evaluate.matching import look_up, match_scores, union
    from crossguard.models.albef import ALBEF, AlbefConfig
    from crossguard.progress import Silent

    words = [f"word{n}" for n in range(200)]
    images, texts, candidates = (32, 160, 16) if size == "tiny" else (96, 480, 32)
    sizes: dict[str, int] = {"vocab_size": 30522}
    if size == "tiny":
        sizes |= {"image_size": 96, "patch_size": 16, "vision_width": 96, "vision_layers": 2, "vision_heads": 4}
        sizes |= {"vision_mlp": 384, "text_width": 96, "text_layers": 4, "text_heads": 4, "text_mlp": 384}
        sizes |= {"fusion_start": 2, "embed_dim": 32}
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.txt"
        vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
        model = ALBEF.from_config(AlbefConfig(**sizes), vocabulary=vocabulary, seed=0).to(device)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # larger than a fresh model's, so that the scores differ
        for parameter in model.parameters():
            if parameter.ndim > 1:
                drawn = torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5
                parameter.copy_(drawn)
    edge = model.image_size[0]
    pixels = torch.rand(images, 3, edge, edge, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    strings = [" ".join(rng.choice(words, rng.integers(6, 22))) for _ in range(texts)]
    by_image = np.stack([rng.choice(texts, candidates, replace=False) for _ in range(images)])
    by_text = np.stack([rng.choice(images, candidates, replace=False) for _ in range(texts)])
    tr = np.stack([np.repeat(np.arange(images), candidates), by_image.ravel()], axis=1)
    ir = np.stack([by_text.ravel(), np.repeat(np.arange(texts), candidates)], axis=1)
    pairs = union(tr, ir)
    ours: list[np.ndarray] = []
    theirs: list[tuple[np.ndarray, np.ndarray]] = []

    def streamed() -> None:
        ours.append(
            match_scores(
                model,
                pairs,
                read_pixels=lambda ids: pixels[torch.from_numpy(ids)],
                texts=strings,
                batch_size=32,
                device=torch.device(device),
                progress=Silent(),
                title="",
            )
        )

    @torch.no_grad()
    def separately() -> None:
        """All states held at once, padded to the longest text; one forward per query, its image repeated."""
        shown = [model.encode_image_states(part.to(device)) for part in pixels.split(32)]
        hidden = torch.cat([part.hidden for part in shown])
        read = model.encode_text_states(strings)
        network = model.network

        def match(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
            fused, _ = network.text_encoder.fuse(
                read.hidden[columns],
                read.mask[columns],
                hidden[rows],
                torch.ones(hidden[rows].shape[:2], dtype=torch.bool, device=device),
                rows=torch.arange(len(rows), device=device),
                weights_of=None,
            )
            return network.itm_head(fused[:, 0])[:, 1].cpu()

        both = []
        for asked, count in ((tr, images), (ir, texts)):
            parts = torch.from_numpy(asked).to(device).split(candidates)
            assert len(parts) == count
            both.append(torch.cat([match(part[:, 0], part[:, 1]) for part in parts]).numpy())
        theirs.append((both[0], both[1]))

    rounds = [(timed(streamed, device), timed(separately, device)) for _ in range(2)]
    ours_s, theirs_s = (min(times) for times in zip(*rounds, strict=True))
    asked = len(tr) + len(ir)
    gap = max(
        np.abs(look_up(tr, pairs, ours[-1]) - theirs[-1][0]).max(),
        np.abs(look_up(ir, pairs, ours[-1]) - theirs[-1][1]).max(),
    )
    spread = float(np.std(theirs[-1][0]))
    print(f"rerank ({size}, {device}): {asked} asked, {len(pairs)} different pairs", end="; ")
    print(f"scores differ by at most {gap:.1e} (their standard deviation: {spread:.1e})")
    print(f"  as evaluation does it: {asked / ours_s:,.0f} asked pairs/s (encoding included)")
    print(f"  directions separately: {asked / theirs_s:,.0f} asked pairs/s; ratio {theirs_s / ours_s:.2f}")


def main() -> None:
    """Run the parts, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["load", "rank", "rerank"], choices=["load", "rank", "rerank"])
    parser.add_argument("--size", default="tiny", choices=["tiny", "vit-b"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        work = {"load": load, "rank": rank, "rerank": lambda: rerank(given.size, given.device)}
        work[given.parts[0]]()
        return
    for part in given.parts:
        options = ["--parts", part, "--size", given.size, "--device", given.device, "--inside"]
        subprocess.run([sys.executable, __file__, *options], check=True)


if __name__ == "__main__":
    main()
