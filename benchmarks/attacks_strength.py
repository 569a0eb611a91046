"""How strong each attack is on the built-in model and on hardened copies of it, at equal budget.

    python benchmarks/attacks_strength.py --folder runs/strength [--models emoji-clip tecoa fare leaf mmcoa mat mat+]
        [--images 64] [--eps 2] [--stronger 4] [--words 1] [--parts image text joint] [--steps 60] [--threads 1]

Retrieval at rank 1 (TR@1, IR@1, percent) on evenly spread pictures of the emoji validation split: clean, pictures alone
attacked, captions alone, and both; and pictures alone within `--stronger`. `adaptive` has each direction under its own
set; what both leave under one set stands below it. Beside them, image passes (pictures that went through the image
tower for this row, forwards; about as many backwards belong to the attack's gradient steps) per picture, and seconds of
CPU time, both of the last column filled before them.

Hardened copies are trained briefly on the training split (batch 64, learning rate 3e-4, 2/255 and one word) and kept in
the folder, as is every finished row: run it again, and it goes on. At the end it says for each model whether any attack
leaves fewer than `adaptive`, by more than one picture or two captions. Attacks' own defaults are used, but for
AutoAttack, whose default takes thousands of passes a picture that it does not break: 40 steps, 4 targets, 100 queries.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import crossguard as cg
from crossguard.attacks import ATTACKS, Attack, make_attack
from crossguard.runs import Rows

COMPARED = ("pgd", "apgd", "auto-attack", "word-swap", "sep", "co-attack", "sga", "dra", "adaptive")
DEFENCES = ("tecoa", "fare", "leaf", "mmcoa", "mat", "mat+")
PARTS = {"image": ("image",), "text": ("text",), "joint": ("image", "text"), "stronger": ("image",)}
OPTIONS: dict[str, dict[str, int]] = {"auto-attack": {"steps": 40, "targets": 4, "queries": 100}}
TRAINED = cg.ThreatModel(image=cg.LInf(eps=2 / 255), text=cg.WordEdits(words=1))


def hardened(name: str, folder: Path, threat: cg.ThreatModel, steps: int) -> Any:
    if name not in DEFENCES:
        return cg.load_model(name)
    place = folder / "models" / name
    if not place.is_dir():
        model = cg.load_model("emoji-clip")
        pairs = cg.load_pairs("emoji", split="train")
        options: dict[str, Any] = {"steps": steps, "batch_size": 64, "learning_rate": 3e-4, "seed": 0}
        cg.train(model, pairs, defence=name, threat=threat, **options).save_pretrained(place)
    return cg.load_model(place)


def parts_of(attack: str, chosen: list[str]) -> list[str]:
    """The chosen parts that an attack can take; of an attack on one modality, that one always."""
    possible = [part for part, modalities in PARTS.items() if set(modalities) <= ATTACKS[attack].uses]
    return [part for part in possible if part in chosen] or possible


class Passes:
    """Counts the pictures that go through a model's image tower while an attack runs."""

    def __init__(self, model: Any) -> None:
        self.count, self.on, encode = 0, False, model.encode_image

        def counted(pixels: torch.Tensor, *rest: Any) -> torch.Tensor:
            self.count += len(pixels) * self.on
            embedding: torch.Tensor = encode(pixels, *rest)
            return embedding

        model.encode_image = counted

    @contextmanager
    def of(self, attack: Attack) -> Iterator[None]:
        """Count from zero what the attack encodes; measuring and ranking are no part of it."""
        method = "search" if hasattr(attack, "search") else "run"
        run = getattr(type(attack), method)

        def watched(*given: Any, **named: Any) -> Any:
            self.on = True
            try:
                return run(*given, **named)
            finally:
                self.on = False

        self.count = 0
        with patch.object(type(attack), method, watched):
            yield


def threat_of(part: str, options: argparse.Namespace) -> cg.ThreatModel:
    eps = options.stronger if part == "stronger" else options.eps
    whole = cg.ThreatModel(image=cg.LInf(eps=eps / 255), text=cg.WordEdits(words=options.words))
    return whole.only(*PARTS[part])


def measure(name: str, options: argparse.Namespace, rows: Rows) -> None:
    done = {(row["model"], row["attack"], row["part"]) for row in rows}
    parts = {attack: parts_of(attack, options.parts) for attack in options.attacks}
    missing = [(a, p) for a in options.attacks for p in parts[a] if (name, a, p) not in done]
    if not missing:
        return
    model = hardened(name, options.folder, TRAINED, options.steps)
    passes = Passes(model)
    pairs = cg.load_pairs("emoji", split="val").spread(options.images)
    clean = cg.evaluate(model, pairs).clean
    for attack, part in missing:
        start, how = time.process_time(), make_attack(attack, **OPTIONS.get(attack, {}))
        with passes.of(how):
            result = cg.evaluate(model, pairs, attack=how, threat=threat_of(part, options), seed=0, examples=0)
        row = {
            "model": name,
            "attack": attack,
            "part": part,
            "images": len(pairs.images),
            "texts": len(pairs.texts),
            "clean": [clean["tr@1"], clean["ir@1"]],
            "robust": [result.robust["tr@1"], result.robust["ir@1"]],
            "shared": [result.shared["tr@1"], result.shared["ir@1"]],
            "passes": passes.count / len(pairs.images),
            "seconds": time.process_time() - start,
        }
        rows.append(row)
        print(json.dumps(row), flush=True)


def show(rows: Rows, models: list[str], attacks: list[str], options: argparse.Namespace) -> None:
    found = {(row["model"], row["attack"], row["part"]): row for row in rows}
    heads = ("image", "text", "joint", f"image, {options.stronger:g}/255")
    print(f"\n| model | attack | {' | '.join(heads)} | image passes | CPU seconds |\n|---|---|---|---|---|---|---|---|")
    for model in models:
        known = [row for row in found.values() if row["model"] == model]
        if not known:
            continue
        print(f"| {model} | none | | | {cell(known[0]['clean'])} | | | |")
        for attack in attacks:
            mine = [found.get((model, attack, part)) for part in PARTS]
            if not any(mine):
                continue
            widest = [row for row in mine[:3] if row][-1] if any(mine[:3]) else mine[3]
            cells = " | ".join(cell(row["robust"]) if row else "" for row in mine)
            print(f"| {model} | {attack} | {cells} | {widest['passes']:.0f} | {widest['seconds']:.1f} |")
            if any(row and row["shared"] != row["robust"] for row in mine):
                cells = " | ".join(cell(row["shared"]) if row else "" for row in mine)
                print(f"| {model} | {attack}, one set | {cells} | | |")
    for model in models:
        beaten = []
        for part in PARTS:
            judge = found.get((model, "adaptive", part))
            for attack in attacks:
                other = found.get((model, attack, part))
                if judge and other:
                    slack = (100 / judge["images"], 200 / judge["texts"])
                    pairs = zip(("TR@1", "IR@1"), judge["robust"], other["robust"], slack, strict=True)
                    beaten += [f"{attack} ({part}, {metric})" for metric, a, b, more in pairs if a > b + more + 1e-9]
        verdict = "yes" if not beaten else f"no: {', '.join(beaten)}"
        print(f"{model}: no attack leaves less than adaptive, by more than a picture or two captions: {verdict}")


def cell(pair: list[float]) -> str:
    return f"{pair[0]:.1f} / {pair[1]:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="hardened models and finished rows")
    parser.add_argument("--models", nargs="+", default=["emoji-clip", *DEFENCES], help="names, defences or folders")
    parser.add_argument("--attacks", nargs="+", default=list(COMPARED), choices=list(COMPARED))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS), help="what is attacked")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--eps", type=float, default=2.0, help="grey levels")
    parser.add_argument("--stronger", type=float, default=4.0, help="grey levels of the last column, pictures alone")
    parser.add_argument("--words", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60, help="training steps of hardened copies")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = Rows(options.folder / f"rows-{options.images}-{options.eps:g}-{options.stronger:g}-{options.words}.jsonl")
    print(f"{options.images} pictures, {threat_of('joint', options)}, {options.threads} thread(s)")
    for name in options.models:
        measure(name, options, rows)
    show(rows, options.models, options.attacks, options)


if __name__ == "__main__":
    main()
