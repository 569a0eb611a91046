"""Attacks on classifiers and segmenters beside a plain PGD of every objective, at the same number of forward passes.

crossguard certify roads-certify                      # trains a segmenter
python benchmarks/sample_attacks.py runs/roads-certify/model roads --eps 4/255 --samples 8
crossguard certify watch-certify                      # trains a classifier
python benchmarks/sample_attacks.py runs/watch-certify/model watch --eps 0.02 --samples 128

The plain PGD is what anyone would write: a uniform start, signed steps, the last iterate; the better of two step sizes.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch

import crossguard as cg
from crossguard.attacks import Storage, attack_samples
from crossguard.attacks.goals import OBJECTIVES, objectives_of
from crossguard.attacks.storage import storages
from crossguard.data import MultiModalSamples

SHARES = (1 / 4, 1 / 12)
"""Steps of the plain PGD, as shares of eps."""


def figures(samples: MultiModalSamples, answers: np.ndarray) -> str:
    """Return the share of right labels, and of masks the IoU of the second class."""
    judged, truth = samples.labels >= 0, samples.labels
    right = f"{100 * (answers == truth)[judged].mean():.1f}"
    if truth.ndim == 1:
        return right
    hits = ((answers == 1) & (truth == 1)).sum()
    either = (((answers == 1) | (truth == 1)) & judged).sum()
    return f"{right} | {100 * hits / either:.1f}"


def plain_pgd(
    model: Any,
    samples: MultiModalSamples,
    objective: str,
    *,
    eps: float,
    steps: int,
    share: float,
    how: Mapping[str, Storage],
    batch_size: int,
) -> np.ndarray:
    """Return what a model answers under a plain PGD."""
    answers = []
    generator = torch.Generator().manual_seed(0)
    for begin in range(0, len(samples), batch_size):
        rows = np.arange(begin, min(begin + batch_size, len(samples)))
        source = {m: samples.modalities[m][rows] for m in model.modalities}
        clean = {m: torch.from_numpy(how[m].scaled(values)) for m, values in source.items()}
        truth = torch.from_numpy(samples.labels[rows])
        now = {m: (v + eps * (2 * torch.rand(v.shape, generator=generator) - 1)).clamp(0, 1) for m, v in clean.items()}
        for _ in range(steps):
            leaves = {m: v.clone().requires_grad_(True) for m, v in now.items()}
            inputs = {m: how[m].low + v * (how[m].high - how[m].low) for m, v in leaves.items()}
            loss = OBJECTIVES[objective](model(inputs).log_softmax(dim=1), truth).sum()
            slopes = torch.autograd.grad(loss, list(leaves.values()))
            for (m, v), slope in zip(clean.items(), slopes, strict=True):
                moved = now[m] + share * eps * slope.sign()
                now[m] = torch.minimum(torch.maximum(moved, v - eps), v + eps).clamp(0, 1)
        stored = {
            m: how[m].stored(now[m].numpy(), source[m], moved=np.ones(source[m].shape, dtype=bool), eps=eps)
            for m in source
        }
        with torch.no_grad():
            answers.append(model({m: torch.from_numpy(v) for m, v in stored.items()}).argmax(dim=1).numpy())
    return np.concatenate(answers)


def compare(
    model: Any,
    samples: MultiModalSamples,
    *,
    eps: float,
    storage: Mapping[str, Storage] | None = None,
    batch_size: int = 8,
    say: Callable[[str], None] = print,
) -> None:
    """Print how many labels are right under every attack."""
    how = storages({m: samples.modalities[m] for m in model.modalities}, model.modalities, storage)
    threat = cg.ThreatModel(**dict.fromkeys(model.modalities, cg.LInf(eps)))
    masks = samples.labels.ndim > 1
    batches = -(-len(samples) // batch_size)
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    hook = model.register_forward_hook(count)
    say(f"| attack | passes | right |{' IoU |' if masks else ''} seconds |")
    say(f"|---|---|---|{'---|' if masks else ''}---|")
    passes = 0
    runs: list[tuple[str, str]] = [("adaptive", "strongest"), ("apgd", "strongest"), ("pgd", "strongest")]
    runs += [("apgd", "margin"), ("pgd", "margin")]
    for name, objective in runs:
        calls, started = 0, time.process_time()
        found = attack_samples(
            model, samples, threat=threat, attack=name, objective=objective, storage=storage, batch_size=batch_size
        )
        if name == "adaptive":
            say(f"| none | | {figures(samples, found.answers)} | |")
            passes = calls // batches
        took = time.process_time() - started
        say(f"| `{name}`, {objective} | {calls // batches} | {figures(samples, found.attacked)} | {took:.0f} |")
    hook.remove()
    for objective in objectives_of("strongest", masks=masks):
        started = time.process_time()
        options = {"eps": eps, "steps": passes, "how": how, "batch_size": batch_size}
        tried = [plain_pgd(model, samples, objective, share=share, **options) for share in SHARES]
        best = min(tried, key=lambda answers: float(figures(samples, answers).split(" | ")[-1]))
        took = time.process_time() - started
        say(f"| plain PGD, {objective} | {passes} | {figures(samples, best)} | {took / len(SHARES):.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a classifier or segmenter")
    parser.add_argument("data", help="name of a data set of samples")
    parser.add_argument("--split", default="test")
    parser.add_argument("--eps", type=lambda text: float(Fraction(text)), default=4 / 255, help="share of the range")
    parser.add_argument("--samples", type=int, default=8, help="how many, evenly spread")
    parser.add_argument("--batch-size", type=int, default=8)
    given = parser.parse_args()
    model = cg.load_model(given.model)
    model.eval().requires_grad_(False)
    samples = cg.load_samples(given.data, split=given.split)
    chosen = np.linspace(0, len(samples) - 1, min(given.samples, len(samples))).astype(int)
    storage = {"depth": Storage.millimetres()} if "depth" in model.modalities else None
    print(f"{given.model}, {len(chosen)} of {given.data} ({given.split}), eps {given.eps:.4g}")
    compare(model, samples.select(chosen), eps=given.eps, storage=storage, batch_size=given.batch_size)


if __name__ == "__main__":
    main()
