"""Visual grounding: where a model looks for an expression, and which proposal that points at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from crossguard.attacks.base import Attack
from crossguard.checks import WrongKind
from crossguard.data import PairBatch, ReferringExpressions
from crossguard.evaluate.batches import in_order, preprocessed
from crossguard.evaluate.examples import Example, Item, spread_evenly
from crossguard.evaluate.grounding_boxes import RIGHT, box_scores, choose, overlap
from crossguard.evaluate.overlay import overlay
from crossguard.evaluate.statistics import Estimate, Ratio
from crossguard.evaluate.store import Arrays
from crossguard.evaluate.stored_batch import StoredBatch
from crossguard.evaluate.task import Part, Rows, SampleTask, check_budgets
from crossguard.models import GROUNDING_LAYER, GroundingModel, PixelRule, attention_maps
from crossguard.progress import Reporter
from crossguard.threat import ThreatModel

PROPOSALS = "from the clean images; the attack does not move them"
_MAPS_AT_ONCE = 32
"""Expressions whose attention to all patches is held in memory together, with its graph."""


@dataclass(frozen=True)
class Grounding(SampleTask):
    """Which proposal a fusion model (ALBEF, BLIP) points at for each expression.

    For every expression the model's gradient-weighted attention to the image (see `models.attention_maps`) is added up
    inside each proposal and divided by the root of its area; the best proposal is the answer, right from an
    intersection over union of one half with the true box. Where the map points nowhere there is no answer, which is a
    miss. Proposals come from the clean image and are not attacked. Every image is attacked together with all its
    expressions, and every expression under its own image alone.

    Rows, one per expression: `index`, `key`, `image`, `text`, `truth` (box), `best_iou` (of all proposals),
    `clean_box`, `clean_iou`, `robust_box`, `robust_iou` (None without attack), `linf`, `words`, `adversarial_text`.

    Args:
        layer: the layer whose attention is looked at, counted among all of BERT's from 0.
    """

    layer: int = GROUNDING_LAYER

    name: ClassVar[str] = "grounding"
    heading: ClassVar[str] = "Visual grounding"
    explained: ClassVar[str] = (
        "Accuracy: share of expressions whose chosen box overlaps the true one by at least one half (intersection over "
        "union)."
    )
    headline: ClassVar[tuple[str, ...]] = ("accuracy",)
    default_batch_size: ClassVar[int] = 16
    reads: ClassVar[str] = "expressions"

    @classmethod
    def fits(cls, model: object, data: object) -> bool:
        """Return whether the data are referring expressions."""
        return isinstance(data, ReferringExpressions)

    def check(self, attack: Attack | None, threat: ThreatModel | None) -> None:
        """Refuse a model that does not show where it looks, or crops, no expressions, or a layer that is not there."""
        if not isinstance(self.model, GroundingModel) or not isinstance(self.model, nn.Module):
            raise WrongKind(
                f"Expected a model that shows where it looks (crossguard.models.GroundingModel: ALBEF, BLIP), but "
                f"{type(self.model).__name__} does not."
            )
        rule = getattr(self.model, "pixel_rule", None)
        if isinstance(rule, PixelRule) and rule.crop:
            raise ValueError(
                f"Expected a model that takes the whole photo, for its maps to be laid over it, but {self.model.name} "
                "crops the centre."
            )
        if not len(self.data):
            raise ValueError(f"Expected expressions, but {self.data.name} ({self.data.split}) has none.")
        check_budgets(attack, threat)
        if threat is not None and threat.target != "both":
            raise ValueError(
                f"Expected target 'both': grounding has no queries and no gallery, but got {threat.target!r}."
            )

    def facts(self, progress: Reporter) -> dict[str, Any]:
        """Return the fingerprint of the data, and the layer."""
        self._check_layer()
        return {
            "content": expressions_fingerprint(self.data),
            "layer": self.layer,
        }

    def _check_layer(self) -> None:
        """Ask for one map, so that a layer that is not there is told before the long work."""
        batch = self.load_batch(np.array([0], dtype=np.int64), self.model.logit_scale.device)
        with torch.no_grad():
            states = self.model.encode_image_states(batch.pixels), self.model.encode_text_states(batch.texts[:1])
            self.model.match_with_attention(*states, torch.tensor([[0, 0]]), layer=self.layer)

    @cached_property
    def batches(self) -> list[Int64[np.ndarray, " images"]]:
        """Images in order, `batch_size` at a time."""
        return in_order(len(self.data.images), batch_size=self.batch_size)

    @property
    def rows(self) -> int:
        """One per expression."""
        return len(self.data)

    @property
    def samples(self) -> str:
        """Expressions and images."""
        return f"{len(self.data):,} expressions about {len(self.data.images):,} images"

    def samples_of(self, ids: Int64[np.ndarray, " images"]) -> Int64[np.ndarray, " samples"]:
        """Return the expressions about some images, ascending."""
        return np.flatnonzero(np.isin(self.data.image_of, ids))

    def load_batch(self, ids: Int64[np.ndarray, " images"], device: torch.device) -> PairBatch:
        """Decode images with all that is said of them; an expression belongs to its own image alone."""
        samples = self.samples_of(ids)
        places = np.searchsorted(ids, self.data.image_of[samples])
        return PairBatch(
            pixels=preprocessed(self.model, [self.data.image(int(image)) for image in ids]),
            texts=tuple(self.data.texts[int(sample)] for sample in samples),
            links=torch.from_numpy(np.stack([places, np.arange(len(samples))], axis=1)),
            image_ids=torch.from_numpy(ids),
            text_ids=torch.from_numpy(samples),
        ).to(device)

    def maps(
        self, batch: PairBatch, pixels: Float[Tensor, "images 3 height width"], texts: Sequence[str]
    ) -> Float64[np.ndarray, "samples rows columns"]:
        """Return where the model looks for each expression in its image, one value per patch, >= 0."""
        with torch.no_grad():
            images, words = self.model.encode_image_states(pixels), self.model.encode_text_states(texts)
        parts = [
            attention_maps(self.model, images, words, pairs, layer=self.layer).cpu()
            for pairs in batch.links.split(_MAPS_AT_ONCE)
        ]
        return torch.cat(parts).double().numpy()

    def answer(self, batch: PairBatch, found: Arrays | None) -> list[dict[str, Any]]:
        """Return per expression the chosen proposal (`box`, None where the map points nowhere) and its `iou`."""
        maps, about = self.maps(batch, *_seen(batch, found)), batch.links[:, 0].cpu().numpy()
        samples = batch.text_ids.cpu().numpy()
        answers: list[dict[str, Any]] = [{} for _ in samples]
        for place, image in enumerate(batch.image_ids.tolist()):
            here = np.flatnonzero(about == place)
            proposals = self.data.proposals[image]
            height, width = (int(side) for side in self.data.sizes[image])
            chosen = choose(box_scores(maps[here], proposals, height=height, width=width))
            ious = overlap(proposals[chosen], self.data.boxes[samples[here]])
            for row, box, iou in zip(here, chosen, ious, strict=True):
                answers[row] = (
                    {"box": proposals[box].tolist(), "iou": float(iou)} if box >= 0 else {"box": None, "iou": 0.0}
                )
        return answers

    def attack(
        self, batch: PairBatch, clean: Sequence[Mapping[str, Any]], attack: Attack, threat: ThreatModel, seed: int
    ) -> Arrays:
        """Attack images with all their expressions, each expression under its own image."""
        return StoredBatch.from_attack(batch, attack(self.model, batch, threat=threat, seed=seed)).arrays()

    def beyond_budget(self, batch: PairBatch, found: Arrays, threat: ThreatModel) -> str:
        """Return how a stored batch leaves the threat."""
        return StoredBatch.of_arrays(found).beyond_budget(self.model, batch, threat)

    def rows_of(
        self,
        batch: PairBatch,
        clean: Sequence[Mapping[str, Any]],
        robust: Sequence[Mapping[str, Any]] | None,
        found: Arrays | None,
    ) -> list[dict[str, Any]]:
        """Return one row per expression."""
        stored = None if found is None else StoredBatch.of_arrays(found)
        rows = []
        for place, (sample, image) in enumerate(zip(batch.text_ids.tolist(), batch.links[:, 0].tolist(), strict=True)):
            truth = self.data.boxes[sample]
            about = int(self.data.image_of[sample])
            proposals = self.data.proposals[about]
            reach = overlap(proposals, np.broadcast_to(truth, proposals.shape)).max()
            after = None if robust is None else robust[place]
            rows.append(
                {
                    "index": sample,
                    "key": self.data.keys[sample],
                    "image": self.data.images[about].key,
                    "text": batch.texts[place],
                    "truth": truth.tolist(),
                    "best_iou": float(reach),
                    "clean_box": clean[place]["box"],
                    "clean_iou": clean[place]["iou"],
                    "robust_box": None if after is None else after["box"],
                    "robust_iou": None if after is None else after["iou"],
                    "linf": None if stored is None else float(stored.linf[image]),
                    "words": None if stored is None else int(stored.words[place]),
                    "adversarial_text": None if stored is None else stored.texts[place],
                }
            )
        return rows

    @classmethod
    def ratios(cls, rows: Rows, side: str) -> dict[str, Ratio]:
        """Return which expressions are right, in groups of an image."""
        return {"accuracy": _share(rows, [row[f"{side}_iou"] >= RIGHT for row in rows])}

    def estimates(self, rows: Rows, settings: Mapping[str, Any]) -> dict[str, dict[str, Estimate | None]]:
        """Return also the "ceiling" that the proposals set, and the share of expressions without an answer."""
        found = super().estimates(rows, settings)
        found["ceiling"] = {"accuracy": _share(rows, [row["best_iou"] >= RIGHT for row in rows]).figure()}
        for side in ("clean", "robust") if settings["attack"] is not None else ("clean",):
            nowhere = [row[f"{side}_box"] is None for row in rows]
            found[f"pointless {side}"] = {"accuracy": _share(rows, nowhere).figure()}
        return found

    def notes(self, rows: Rows, settings: Mapping[str, Any]) -> list[str]:
        """Return what the proposals are, and how often there is no answer."""
        reach = 100 * float(np.mean([row["best_iou"] >= RIGHT for row in rows]))
        sides = ("clean", "robust") if settings["attack"] is not None else ("clean",)
        nowhere = {side: 100 * float(np.mean([row[f"{side}_box"] is None for row in rows])) for side in sides}
        return [
            f"Proposals: {PROPOSALS}. For {reach:.1f} % of the expressions some proposal is right; no choice among "
            "them can do better.",
            f"Attention of layer {self.layer}. Expressions without an answer, as the map points nowhere: "
            f"{', '.join(f'{share:.1f} % {side}' for side, share in nowhere.items())}.",
            "Examples are warm where the model looks; the true box is white, the chosen one blue if right, else red.",
        ]

    def examples(self, rows: Rows, part: Part, *, count: int) -> tuple[Example, ...]:
        """Return expressions spread evenly over those that are right without attack."""
        right = [place for place, row in enumerate(rows) if row["clean_iou"] >= RIGHT]
        chosen = spread_evenly(right or list(range(len(rows))), count=count)
        device, found = self.model.logit_scale.device, []
        for number, ids in enumerate(self.batches):
            samples = self.samples_of(ids).tolist()
            here = [place for place in chosen if place in samples]
            if not here:
                continue
            batch = self.load_batch(ids, device)
            sides = [("clean", _seen(batch, None))]
            stored = part.store.read(number, ids)
            if stored is not None:
                sides.append(("robust", _seen(batch, stored)))
            maps = {side: self.maps(batch, *seen) for side, seen in sides}
            found += [self._example(rows[place], samples.index(place), batch, dict(sides), maps) for place in here]
        return tuple(found)

    def _example(
        self,
        row: Mapping[str, Any],
        place: int,
        batch: PairBatch,
        sides: Mapping[str, tuple[Tensor, Sequence[str]]],
        maps: Mapping[str, np.ndarray],
    ) -> Example:
        image = int(batch.links[place, 0])
        height, width = (int(side) for side in self.data.sizes[int(batch.image_ids[image])])
        asked = [Item("The expression", row["text"])]
        if len(sides) > 1:
            asked.append(Item("Under attack", row["adversarial_text"], source=row["text"]))
        answers = {}
        for side, (pixels, _) in sides.items():
            right = row[f"{side}_iou"] >= RIGHT
            drawn = overlay(
                (pixels[image] * 255).round().byte().permute(1, 2, 0).cpu().numpy(),
                maps[side][place].astype(np.float32),
                size=(height, width),
                truth=row["truth"],
                chosen=row[f"{side}_box"],
                right=right,
            )
            verdict = "no answer" if row[f"{side}_box"] is None else f"overlap {row[f'{side}_iou']:.2f}"
            title = "Without attack" if side == "clean" else "Under attack"
            answers[title] = (Item(verdict, picture=drawn, right=right),)
        return Example(tuple(asked), answers)


def _share(rows: Rows, hits: Sequence[bool]) -> Ratio:
    return Ratio.of_hits(np.array(hits, dtype=bool), np.array([row["image"] for row in rows]))


def _seen(batch: PairBatch, found: Arrays | None) -> tuple[Float[Tensor, "images 3 height width"], Sequence[str]]:
    if found is None:
        return batch.pixels, batch.texts
    stored = StoredBatch.of_arrays(found)
    return stored.pixels.to(batch.pixels.device), stored.texts


def expressions_fingerprint(expressions: ReferringExpressions) -> str:
    """Return 32 hexadecimal digits that change with any image file, expression, box or proposal.

    Raises:
        ValueError: an image file is missing.
    """
    digest = blake2b(digest_size=16)
    for picture, proposals in zip(expressions.images, expressions.proposals, strict=True):
        content = picture.read()
        digest.update(f"{picture.key!r} {len(content)} {proposals.tolist()};".encode())
        digest.update(content)
    for key, text in zip(expressions.keys, expressions.texts, strict=True):
        digest.update(f"{key!r} {text!r};".encode())
    for values in (expressions.image_of, expressions.boxes, expressions.sizes):
        digest.update(values.tobytes())
    return digest.hexdigest()
