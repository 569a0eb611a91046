"""AutoAttack's parts beside its authors' code (pyautoattack) and another library's (ART), on one model at one budget.

python benchmarks/auto_attack.py                      # emoji-clip, images alone, 2/255 and 4/255
python benchmarks/auto_attack.py --model runs/emoji-mat/model
python benchmarks/auto_attack.py --steps 100 --targets 9 --queries 5000       # AutoAttack's standard version

64 evenly spread pictures of the validation split are classified among 64 captions, the first of each picture. Printed
are how many are right, clean and under each attack, and how many pictures ours and theirs judge differently.
"""

import argparse
import logging
import time

import numpy as np
import torch
from torch.nn.functional import normalize

import crossguard as cg
from crossguard.attacks import ClassScores, LInfBall, Search, run_parts, standard_parts
from crossguard.attacks.class_search import ScorePart
from crossguard.evaluate.batches import pair_batch

NAMES = ("apgd-ce", "apgd-t", "fab-t", "square")


class Captions(torch.nn.Module):
    """Logits of pictures over fixed captions."""

    def __init__(self, model: torch.nn.Module, texts: list[str]) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            self.features = normalize(model.encode_text(texts), dim=-1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.logit_scale.detach() * normalize(self.model.encode_image(pixels), dim=-1) @ self.features.T


def ours(
    network: Captions, pixels: torch.Tensor, parts: tuple[ScorePart, ...], *, eps: float, seed: int
) -> torch.Tensor:
    right = torch.eye(len(pixels), dtype=torch.bool)
    scores = ClassScores(lambda values, rows: network(values), right=right, wrong=~right)
    search = Search(scores, LInfBall(pixels, eps), ids=torch.arange(len(pixels)), seed=seed)
    run_parts(search, parts)
    return search.values


def authors(network: Captions, pixels: torch.Tensor, name: str, given: argparse.Namespace, eps: float) -> torch.Tensor:
    from pyautoattack import AutoAttack

    attack = AutoAttack(network, eps=eps, seed=given.seed)
    attack.attacks_to_run = list(NAMES) if name == "auto-attack" else [name]
    attack.apgd.n_iter = attack.apgd_targeted.n_iter = attack.fab.n_iter = given.steps
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = given.targets
    attack.square.n_queries = given.queries
    found = attack.run_standard_evaluation(pixels, torch.arange(len(pixels)), batch_size=len(pixels))
    return found[0] if isinstance(found, tuple) else found


def art(
    network: Captions, pixels: torch.Tensor, name: str, given: argparse.Namespace, eps: float
) -> torch.Tensor | None:
    from art.attacks.evasion import AutoProjectedGradientDescent, SquareAttack
    from art.estimators.classification import PyTorchClassifier

    victim = PyTorchClassifier(
        network,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=tuple(pixels.shape[1:]),
        nb_classes=len(pixels),
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    common = {"eps": eps, "batch_size": len(pixels), "verbose": False}
    np.random.seed(given.seed)  # noqa: NPY002, the library draws from it
    if name == "apgd-ce":
        attack = AutoProjectedGradientDescent(
            victim, eps_step=2 * eps, max_iter=given.steps, nb_random_init=1, loss_type="cross_entropy", **common
        )
    elif name == "square":
        attack = SquareAttack(victim, max_iter=given.queries, nb_restarts=1, **common)
    else:
        return None
    return torch.from_numpy(attack.generate(pixels.numpy(), np.arange(len(pixels))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji-clip")
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--eps", type=float, nargs="+", default=[2, 4], help="of 255")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[*NAMES, "auto-attack"])
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    model = cg.load_model(given.model)
    model.eval().requires_grad_(False)
    pairs = cg.load_pairs("emoji", split="val")
    batch = pair_batch(model, pairs, np.linspace(0, len(pairs.images) - 1, given.pictures).astype(int))
    network = Captions(model, [batch.texts[int(row.nonzero()[0])] for row in batch.positives])
    labels = torch.arange(given.pictures)

    @torch.no_grad()
    def right(pixels: torch.Tensor) -> torch.Tensor:
        return network(pixels).argmax(dim=1) == labels

    print(
        f"{given.model}, {given.pictures} pictures, {int(right(batch.pixels).sum())} right; "
        f"steps {given.steps}, targets {given.targets}, queries {given.queries}, seed {given.seed}"
    )
    print("| attack | eps | ours | its authors' | differ | ART's | seconds, ours | seconds, its authors' |")
    print("|---|---|---|---|---|---|---|---|")
    whole = standard_parts(steps=given.steps, targets=given.targets, queries=given.queries)
    for radius in given.eps:
        eps = radius / 255
        for name in given.only:
            parts = whole if name == "auto-attack" else (whole[NAMES.index(name)],)
            started = time.perf_counter()
            found = ours(network, batch.pixels, parts, eps=eps, seed=given.seed)
            took = time.perf_counter() - started
            left = right(found)
            started = time.perf_counter()
            known = right(authors(network, batch.pixels, name, given, eps))
            longer = time.perf_counter() - started
            third = art(network, batch.pixels, name, given, eps)
            print(
                f"| `{name}` | {radius:g}/255 | {int(left.sum())} | {int(known.sum())} "
                f"| {int((left != known).sum())} | {'' if third is None else int(right(third).sum())} "
                f"| {took:.1f} | {longer:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
