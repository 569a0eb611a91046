"""How close `adaptive` comes to an attack without limits, and whether the batch size plays a part.

    python benchmarks/attacks_limits.py --folder runs/strength [--models emoji-clip mat] [--images 32] [--eps 2]
        [--words 1] [--steps 100] [--restarts 5] [--rounds 2] [--batches 128 64 16] [--gallery 128] [--threads 1]

Both on the emoji validation split. The attack without limits raises six losses of all images by Auto-PGD (cross-entropy
and margin of images asking for texts and of texts asking for images, counted texts, and all of it), each from several
random starts and from where the images stand, tries every word of every text, and chooses sets one sample at a time,
round after round, until nothing helps. It is written here, apart from the library's own search.

Printed are the queries that each leaves right: images and texts, each under its own set, and both under one.
`adaptive` with other batch sizes is measured on a gallery of `--gallery` pictures. Models and finished rows are kept in
the folder (models are those of `attacks_strength.py`): run it again, and it goes on.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import crossguard as cg
from attacks_strength import Passes, hardened
from crossguard.attacks import make_attack
from crossguard.attacks.apgd import auto_maximise
from crossguard.attacks.ball import LInfBall
from crossguard.attacks.base import frozen
from crossguard.attacks.encode import encode_images, encode_unit_texts
from crossguard.attacks.sources import make_source
from crossguard.attacks.word_variants import EditedText
from crossguard.data import PairBatch
from crossguard.evaluate.batches import pair_batch
from crossguard.runs import Rows

WEIGHTS = {"tr": (1.0, 0.0), "ir": (0.0, 1.0), "shared": (1.0, 1.0)}
LOSSES = ("tr entropy", "tr margin", "ir entropy", "ir margin", "ir count", "all")


def margins(scores: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Per row, by how much the best other column leads over the best own one."""
    low = torch.finfo(scores.dtype).min
    return scores.masked_fill(own, low).amax(-1) - scores.masked_fill(~own, low).amax(-1)


def entropies(scores: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    return scores.logsumexp(-1) - scores.masked_fill(~own, -torch.inf).logsumexp(-1)


class Unlimited:
    """The attack without limits on one batch, which is the whole gallery; two towers."""

    def __init__(self, model: Any, batch: PairBatch, options: argparse.Namespace) -> None:
        self.model, self.batch, self.options = model, batch, options
        self.scale, self.own = float(model.logit_scale.detach()), batch.positives
        self.eps = options.eps / 255
        texts, owners = list(batch.texts), list(range(len(batch.texts)))
        if options.words:
            proposals = make_source("thesaurus").candidates(batch.texts, model=model)
            for j, (text, proposed) in enumerate(zip(batch.texts, proposals, strict=True)):
                variants = [text for *_, text in EditedText(text, proposed).variants(every=True)]
                texts += variants
                owners += [j] * len(variants)
        self.text_owners = np.array(owners)
        self.texts = encode_unit_texts(model, texts)
        self.pixels = [batch.pixels]
        self.images = self.embed(batch.pixels)[None]
        self.sets = {name: (np.zeros(len(batch.pixels), int), np.arange(len(batch.texts))) for name in WEIGHTS}

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(encode_images(self.model, pixels), dim=-1)

    def run(self) -> dict[str, list[int]]:
        for name in WEIGHTS:
            self.choose(name)
        for turn in range(self.options.rounds):
            for kind in LOSSES:
                for restart in range(self.options.restarts):
                    self.raise_loss(kind, turn, restart)
            for name in ("tr", "ir", "shared"):
                self.choose(name)
            print(f"  without limits, round {turn + 1}: {self.left()}", flush=True)
        return self.left()

    def raise_loss(self, kind: str, turn: int, restart: int) -> None:
        name = kind.split()[0].replace("all", "shared")
        images, texts = self.sets[name]
        words, others = self.texts[texts], self.images[images, np.arange(len(images))]
        here = torch.eye(len(images), dtype=torch.bool)

        def loss(pixels: torch.Tensor) -> torch.Tensor:
            """Of every image alone; the others stand still."""
            moved = torch.nn.functional.normalize(self.model.encode_image(pixels).float(), dim=-1)
            scores = self.scale * moved @ words.T
            if kind == "tr entropy":
                return entropies(scores, self.own)
            if kind == "tr margin":
                return margins(scores, self.own)
            still = (self.scale * others @ words.T)[None].expand(len(images), -1, -1)
            each = torch.where(here[:, :, None], scores[None], still).transpose(1, 2)  # image, text, images
            mine = self.own.float()
            if kind == "ir entropy":
                return (entropies(each, self.own.T[None].expand_as(each)) * mine).sum(1)
            asked = margins(each, self.own.T[None].expand_as(each))
            if kind == "ir margin":
                return (asked * mine).sum(1)
            count = asked.sigmoid().sum(1)
            return (
                count if kind == "ir count" else count / len(texts) + margins(scores, self.own).sigmoid() / len(images)
            )

        ball = LInfBall(self.batch.pixels, self.eps)
        start = ball.start(self.batch.image_ids, seed=self.options.seed, stream=1000 * turn + restart)
        if turn and not restart:
            start = torch.stack([self.pixels[c][i] for i, c in enumerate(images)])
        found = ball.to_pixels(auto_maximise(loss, ball, steps=self.options.steps, start=start))
        self.pixels.append(found)
        self.images = torch.cat([self.images, self.embed(found)[None]])

    def choose(self, name: str) -> None:
        """One sample after another takes its worst candidate, from every set there is; the worst outcome stays."""
        results = [self.ascend(*start, *WEIGHTS[name]) for start in self.sets.values()]
        best = max(results, key=lambda result: result[0])
        self.sets[name] = best[1]

    def value(self, scores: torch.Tensor, tr: float, ir: float) -> torch.Tensor:
        """What sets are worth: failed queries, and a little for those that nearly fail."""
        total = torch.zeros(scores.shape[:-2])
        for weight, matrix, own in ((tr, scores, self.own), (ir, scores.transpose(-1, -2), self.own.T)):
            lead = margins(matrix, own.expand_as(matrix))
            total = total + weight * ((lead >= -1e-5).float() + 0.01 * lead.sigmoid()).mean(-1)
        return total

    def ascend(
        self, images: np.ndarray, texts: np.ndarray, tr: float, ir: float
    ) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
        images, texts = images.copy(), texts.copy()
        rows = np.arange(len(images))
        scores = self.scale * self.images[images, rows] @ self.texts[texts].T
        value, moved = float(self.value(scores, tr, ir)), True
        while moved:
            moved = False
            for i in range(len(images)):
                options = scores[None].repeat(len(self.images), 1, 1)
                options[:, i] = self.scale * self.images[:, i] @ self.texts[texts].T
                found = self.value(options, tr, ir)
                if float(found.max()) > value + 1e-6:
                    images[i] = int(found.argmax())
                    scores, value, moved = options[images[i]], float(found.max()), True
            for j in range(len(texts)):
                forms = np.flatnonzero(self.text_owners == j)
                options = scores[None].repeat(len(forms), 1, 1)
                options[:, :, j] = self.scale * self.texts[forms] @ self.images[images, rows].T
                found = self.value(options, tr, ir)
                if float(found.max()) > value + 1e-6:
                    pick = int(found.argmax())
                    texts[j], scores, value, moved = forms[pick], options[pick], float(found.max()), True
        return value, (images, texts)

    def left(self) -> dict[str, list[int]]:
        found = {}
        for name, (images, texts) in self.sets.items():
            scores = self.scale * self.images[images, np.arange(len(images))] @ self.texts[texts].T
            found[name] = [int((margins(m, o) < -1e-5).sum()) for m, o in ((scores, self.own), (scores.T, self.own.T))]
        return {"tr": found["tr"][:1], "ir": found["ir"][1:], "shared": found["shared"]}


def adaptive(model: Any, pairs: Any, threat: cg.ThreatModel, batch: int, passes: Passes) -> dict[str, Any]:
    attack = make_attack("adaptive")
    start = time.process_time()
    with passes.of(attack):
        result = cg.evaluate(model, pairs, attack=attack, threat=threat, seed=0, batch_size=batch, examples=0)
    counts = {"tr": len(pairs.images), "ir": len(pairs.texts)}
    robust = {d: [round(result.robust[f"{d}@1"] * n / 100)] for d, n in counts.items()}
    shared = [round(result.shared[f"{d}@1"] * n / 100) for d, n in counts.items()]
    seconds = time.process_time() - start
    return {"left": {**robust, "shared": shared}, "passes": passes.count / len(pairs.images), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="hardened models and finished rows")
    parser.add_argument("--models", nargs="+", default=["emoji-clip", "mat"], help="names, defences or folders")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--eps", type=float, default=2.0, help="grey levels")
    parser.add_argument("--words", type=int, default=1, choices=(0, 1))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="*", default=[128, 64, 16])
    parser.add_argument("--gallery", type=int, default=128, help="pictures for other batch sizes")
    parser.add_argument("--training-steps", type=int, default=60, help="training steps of hardened copies")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    threat = cg.ThreatModel(image=cg.LInf(eps=options.eps / 255), text=cg.WordEdits(words=options.words))
    trained = cg.ThreatModel(image=cg.LInf(eps=2 / 255), text=cg.WordEdits(words=1))
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = Rows(options.folder / f"limits-{options.eps:g}-{options.words}.jsonl")
    for name in options.models:
        model = hardened(name, options.folder, trained, options.training_steps)
        passes = Passes(model)
        val = cg.load_pairs("emoji", split="val")
        asked: list[tuple[str, int, int]] = [("adaptive", options.images, 64), ("without limits", options.images, 0)]
        asked += [("adaptive", options.gallery, batch) for batch in options.batches]
        for attack, images, batch in asked:
            key = {"model": name, "attack": attack, "images": images, "batch": batch}
            if any(all(row[k] == v for k, v in key.items()) for row in rows):
                continue
            pairs = val.spread(images)
            if attack == "adaptive":
                row = adaptive(model, pairs, threat, batch, passes)
            else:
                start = time.process_time()
                with frozen(model):
                    whole = pair_batch(model, pairs, np.arange(len(pairs.images)))
                    row = {"left": Unlimited(model, whole, options).run(), "seconds": time.process_time() - start}
            rows.append({**key, "texts": len(pairs.texts), **row})
            print(json.dumps({**key, **row}), flush=True)
    heads = ("model", "attack", "pictures, texts", "batch", "images left", "texts left", "left under one set")
    print(f"\n| {' | '.join(heads)} | passes | seconds |\n|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        if row["model"] in options.models:
            left, batch = row["left"], row["batch"] or "all"
            print(
                f"| {row['model']} | {row['attack']} | {row['images']}, {row['texts']} | {batch} | {left['tr'][0]} | "
                f"{left['ir'][0]} | {left['shared'][0]}, {left['shared'][1]} | {row.get('passes', 0):.0f} | "
                f"{row['seconds']:.0f} |"
            )


if __name__ == "__main__":
    main()
