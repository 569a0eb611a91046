"""What a GPU gives the library, beside the bare passes of the same models: one command, five minutes on one GPU.

    python benchmarks/gpu.py [--out gpu.json] [--device cuda] [--only pgd mat certify] [--seconds 300]
    python benchmarks/gpu.py --size tiny --device cpu      # that it runs, on anything

Every line runs the library once to warm up and once by the clock, and notes each pass through the model's encoders:
how many images or tokens, in which precision, with a gradient to follow or without. Then the same passes are made again
without the library ("bare"). The share says how much of the time the passes would take alone: 1.00 is as fast as the
model allows. Certification is held against the bare forward passes of its base model in the same way.

Models have random weights, which change no time: CLIP ViT-B/16 at 224 pixels, EfficientNet-Lite0 at 160 pixels with
four layers of MiniLM (the extra `pretrain`), the road model. Photos are drawn, 500 x 375 pixels, five captions each.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

import crossguard as cg
from crossguard.attacks import make_attack
from crossguard.certify.design import Design
from crossguard.certify.sampling import Asked, pixel_votes
from crossguard.evaluate.batches import in_order, pair_batch
from crossguard.models import CLIP
from crossguard.models.road_net import RoadNet
from crossguard.progress import Silent
from crossguard.runs import write_json
from crossguard.training import Pictures, train
from host_time import build_tokenizer, draw_pairs

THREAT = cg.ThreatModel(image=cg.LInf(2 / 255), text=cg.WordEdits(1))
KEPT = {"rgb": 0.0193, "depth": 0.00214}  # of the pixels, the published setting for KITTI Road
AIMS = {
    **{"pgd": 0.85, "sga": 0.80, "adaptive": 0.60, "mat step": 0.80, "clean step": 0.91},
    **{"certify resnet-152": 0.95, "certify tiny": 0.87},
}
"""Shares of the bare passes."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    vision: dict[str, int]
    photo: tuple[int, int]
    batch: int
    attacked: dict[str, int]
    step: int
    evaluated: int
    road: tuple[int, int]
    draws: int


SIZES = {
    "full": Size(
        {
            **{"image_size": 224, "patch_size": 16, "vision_width": 768, "vision_layers": 12, "text_width": 512},
            **{"text_layers": 12, "context_length": 77, "embed_dim": 512},
        },
        photo=(500, 375),
        batch=256,
        attacked={"pgd": 256, "word-swap": 256, "sga": 64, "adaptive": 64},
        step=128,
        evaluated=256,
        road=(384, 1248),
        draws=192,
    ),
    "tiny": Size(
        {
            **{"image_size": 16, "patch_size": 8, "vision_width": 32, "vision_layers": 1, "text_width": 32},
            **{"text_layers": 1, "context_length": 32, "embed_dim": 16},
        },
        photo=(24, 18),
        batch=4,
        attacked=dict.fromkeys(("pgd", "word-swap", "sga", "adaptive"), 2),
        step=2,
        evaluated=4,
        road=(32, 64),
        draws=2,
    ),
}


@dataclass
class Pass:
    """One pass through an encoder: what went in, and how it was computed."""

    tower: str
    rows: Any
    gradient: bool
    weights: bool
    autocast: bool
    training: bool


@dataclass
class Record:
    """All passes of a piece of work."""

    passes: list[Pass] = field(default_factory=list)

    def replay(self, model: Any, device: torch.device) -> None:
        """Make the same passes without the library; images are of noise."""
        noise: dict[tuple[int, ...], Tensor] = {}
        state: tuple[bool, bool] | None = None
        for one in self.passes:
            low = torch.autocast(device.type, torch.bfloat16) if one.autocast else nullcontext()
            if state != (one.training, one.weights):
                state = (one.training, one.weights)
                model.train(one.training).requires_grad_(one.weights)
            with low, torch.set_grad_enabled(one.gradient):
                if one.tower == "image":
                    if one.rows not in noise:
                        noise[one.rows] = torch.rand(one.rows, device=device)
                    pixels = noise[one.rows].detach().requires_grad_(one.gradient and not one.weights)
                    found = model.encode_image(pixels)
                else:
                    found = model.encode_text(one.rows)
                if found.requires_grad:
                    found.float().sum().backward()
        model.zero_grad(set_to_none=True)


@contextmanager
def recorded(model: Any, device: torch.device) -> Iterator[Record]:
    """Note every pass through the model's encoders; texts are noted as the tokens that they become."""
    record, kind = Record(), type(model)
    real = {name: getattr(kind, name) for name in ("encode_image", "encode_text")}

    def noting(name: str) -> Callable[..., Tensor]:
        def encode(self: Any, given: Any) -> Tensor:
            rows = tuple(given.shape) if name == "encode_image" else given
            if isinstance(rows, list | tuple) and name == "encode_text":
                rows = given = self.tokenize(given)
            found: Tensor = real[name](self, given)
            weights = any(p.requires_grad for p in self.parameters())
            low = torch.is_autocast_enabled(device.type)
            record.passes.append(Pass(name[7:], rows, found.requires_grad, weights, low, self.training))
            return found

        return encode

    for name in real:
        setattr(kind, name, noting(name))
    try:
        yield record
    finally:
        for name, method in real.items():
            setattr(kind, name, method)


class Bench:
    """The models, the photos and the clock.

    Args:
        size: how much.
        device: where.
        folder: for the photos.
    """

    def __init__(self, size: Size, device: torch.device, folder: Path) -> None:
        self.size, self.device = size, device
        self.pairs = draw_pairs(folder, max(size.batch, size.evaluated, 2 * size.step), size=size.photo)
        tokenizer = build_tokenizer(self.pairs)
        self.clip = CLIP.from_sizes(tokenizer, **size.vision, seed=0, name="clip").to(device).eval()

    def seconds(self, work: Callable[[], object], *, least: float = 0.0) -> float:
        """Seconds of one call, after one that warms up; repeated until `least` seconds have passed."""
        work()
        done, start = 0, self._now()
        while done == 0 or self._now() - start < least:
            work()
            done += 1
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return (self._now() - start) / done

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def beside_bare(self, model: Any, work: Callable[[], object], units: int) -> dict[str, float]:
        """Units per second of a piece of work and of its bare passes, and the share that the passes have."""
        whole = self.seconds(work)
        with recorded(model, self.device) as record:
            work()
        bare = self.seconds(partial(record.replay, model, self.device))
        model.eval().requires_grad_(True)
        return {"per_second": units / whole, "bare_per_second": units / bare, "share": bare / whole}

    # The lines

    def tower(self) -> Iterator[tuple[str, dict[str, float]]]:
        """The image tower alone, in the precisions that there are."""
        pixels = torch.rand(self.size.batch, 3, *self.clip.image_size, device=self.device)

        def forward() -> None:
            with torch.no_grad():
                self.clip.encode_image(pixels)

        def both() -> None:
            self.clip.encode_image(pixels.detach().requires_grad_(True)).float().sum().backward()

        cuda = self.device.type == "cuda"
        self.clip.requires_grad_(False)
        precisions = {"bf16": "highest", "fp32": "highest", **({"tf32": "high"} if cuda else {})}
        for name, products in precisions.items():
            low = torch.autocast(self.device.type, torch.bfloat16) if name == "bf16" else nullcontext()
            torch.set_float32_matmul_precision(products)
            for what, work in {"forward": forward, "forward + backward": both}.items():
                with low:
                    rate = self.size.batch / self.seconds(work, least=1.0 if cuda else 0.0)
                yield f"image tower, {name}, {what}", {"per_second": rate}
        torch.set_float32_matmul_precision("highest")
        self.clip.requires_grad_(True)

    def attack(self, name: str) -> dict[str, float]:
        """An attack, per image (of word-swap: per caption); the batch is on the device already."""
        options = {"pgd": {"steps": 10}}.get(name, {})
        threat = {"pgd": THREAT.only("image"), "word-swap": THREAT.only("text")}.get(name, THREAT)
        count = self.size.attacked[name]
        made = [pair_batch(self.clip, self.pairs, ids).to(self.device) for ids in in_order(count, batch_size=count)]
        units = sum(len(batch.texts) for batch in made) if name == "word-swap" else count

        def work() -> None:
            for batch in made:
                make_attack(name, **options)(self.clip, batch, threat=threat, seed=0)

        return self.beside_bare(self.clip, work, units)

    def step(self, model: Any, defence: str, pairs: int) -> dict[str, float]:
        """Training steps, per pair; the pictures are decoded before, and the first step is not counted."""
        pictures = Pictures(model, self.pairs)
        threat = None if defence == "clean" else THREAT

        def work(steps: int) -> None:
            common = {"batch_size": pairs, "device": self.device, "log_every": 0, "progress": Silent()}
            train(model, self.pairs, defence=defence, threat=threat, steps=steps, pictures=pictures, **common)

        one, three = self.seconds(partial(work, 1)), self.seconds(partial(work, 3))
        with recorded(model, self.device) as record:
            work(1)
        bare = self.seconds(partial(record.replay, model, self.device))
        model.eval().requires_grad_(True)
        whole = max((three - one) / 2, 1e-9)
        return {"seconds": whole, "bare_seconds": bare, "per_second": pairs / whole, "share": bare / whole}

    def evaluation(self, attack: str | None) -> dict[str, float]:
        """A whole evaluation, per photo: decoding, attack, ranking and rows."""
        pairs = self.pairs.head(self.size.evaluated)
        asked = (
            {} if attack is None else {"attack": attack, "threat": THREAT if attack == "sga" else THREAT.only("image")}
        )
        work = partial(cg.evaluate, self.clip, pairs, task="retrieval", progress=Silent(), **asked)
        return self.beside_bare(self.clip, work, len(pairs.images))

    def certificate(self, encoder: str, batch_size: int, precision: str) -> dict[str, float]:
        """Draws per second of the road model, beside its bare forward passes."""
        height, width = self.size.road
        rng = np.random.default_rng(0)
        values = {m: rng.random((1, c, height, width), dtype=np.float32) for m, c in (("rgb", 3), ("depth", 1))}
        model = RoadNet({"rgb": 3, "depth": 1}, ("other", "road"), encoder=encoder).eval().to(self.device)
        keep = {m: max(1, round(share * height * width)) for m, share in KEPT.items()}
        how: dict[str, Any] = {"batch_size": batch_size, "device": self.device, "mask_size": (height, width)}
        asked = Asked(model, values, Design(keep, dict.fromkeys(keep, height * width), precision=precision, **how))
        draw = torch.arange(batch_size, device=self.device)
        inputs, kept = asked.sub_samples(np.array([0]), torch.zeros_like(draw), draw)
        shaped = {name: mask.reshape(-1, height, width) for name, mask in kept.items()}
        draws = max(batch_size, self.size.draws // batch_size * batch_size)

        @torch.no_grad()
        def forward() -> None:
            low = torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16")
            with low:
                for _ in range(draws // batch_size):
                    model(inputs, shaped)

        with Silent().task("", total=1) as task:
            whole = self.seconds(partial(pixel_votes, (0, draws), asked=asked, image=0, task=task))
        bare = self.seconds(forward)
        return {"per_second": draws / whole, "bare_per_second": draws / bare, "share": bare / whole}


def lines(bench: Bench, *, full: bool) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """Give every line of the table with what measures it."""
    step = bench.size.step
    for name in bench.size.attacked:
        yield name, partial(bench.attack, name)
    yield "mat step", partial(bench.step, bench.clip, "mat", step)
    small = bench.clip
    if full:
        from photo_study import two_towers

        small = two_towers(160, layers=4).to(bench.device)
    yield "clean step", partial(bench.step, small, "clean", 2 * step)
    for attack in (None, "pgd", "sga"):
        yield f"evaluate {attack or 'clean'}", partial(bench.evaluation, attack)
    for encoder in ("resnet-152", "tiny") if full else ("tiny",):
        for precision in ("float32", "bfloat16"):
            low = "" if precision == "float32" else ", bfloat16"
            for batch_size in ((16, 64) if encoder == "resnet-152" else (64,)) if full else (2,):
                name = f"certify {encoder}, batch {batch_size}{low}"
                yield name, partial(bench.certificate, encoder, batch_size, precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=sorted(SIZES), default="full")
    parser.add_argument("--only", nargs="+", default=[], help="what to measure, by words of the lines")
    parser.add_argument("--seconds", type=float, default=280, help="no line is begun after these")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    device, size, begun = torch.device(options.device), SIZES[options.size], time.monotonic()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "size": options.size, "lines": {}}
    print(f"{name}\n{'':<34}{'per second':>12}{'bare':>12}{'share':>8}{'aim':>6}")

    def told(line: str, figures: dict[str, float]) -> None:
        found["lines"][line] = figures
        aim = next((value for start, value in AIMS.items() if line.split(",")[0] == start), None)
        bare, share = figures.get("bare_per_second"), figures.get("share")
        print(
            f"{line:<34}{figures['per_second']:>12,.1f}{'' if bare is None else f'{bare:,.1f}':>12}"
            f"{'' if share is None else f'{share:.2f}':>8}{'' if aim is None else f'{aim:.2f}':>6}",
            flush=True,
        )
        if options.out is not None:
            write_json(options.out, found)

    with TemporaryDirectory() as folder:
        bench = Bench(size, device, Path(folder))
        if not options.only or "tower" in options.only:
            for line, figures in bench.tower():
                told(line, figures)
        for line, measure in lines(bench, full=options.size == "full"):
            if options.only and not set(line.replace(",", "").split()) & set(options.only):
                continue
            if time.monotonic() - begun > options.seconds:
                print(f"{line:<34}{'no time left':>12}")
                continue
            told(line, measure())


if __name__ == "__main__":
    main()
