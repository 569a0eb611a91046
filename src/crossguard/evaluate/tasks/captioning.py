"""Captioning: what a model writes for an image, and its loss of the image's references."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from crossguard.attacks.ascent import LossPerSample
from crossguard.attacks.base import Attack
from crossguard.checks import WrongKind, check_range, shown
from crossguard.data import OneToManyPairs, PairBatch, as_pairs
from crossguard.evaluate.batches import preprocessed
from crossguard.evaluate.captioning_attack import (
    CaptionObjective,
    caption_objective,
    captions_loss,
    check_caption_attack,
    check_target_text,
    says,
)
from crossguard.evaluate.captioning_scores import References, score_captions, unavailable_metrics
from crossguard.evaluate.captioning_tokens import choose_tokenizer
from crossguard.evaluate.fingerprint import pairs_fingerprint
from crossguard.evaluate.statistics import (
    FEWEST_GROUPS,
    Estimate,
    Ratio,
    bootstrap_figure,
    group_draws,
)
from crossguard.evaluate.store import Arrays
from crossguard.evaluate.task import Rows
from crossguard.evaluate.writing import WritingTask, stored
from crossguard.models import Captioner
from crossguard.progress import Reporter
from crossguard.threat import ThreatModel

WORDS = {
    "ptb": "Words by the Penn Treebank tokenizer, as in published figures.",
    "plain": "Words by the plain tokenizer, as there was no Java: figures differ slightly from published ones.",
}
AIMS = {"references": "the loss of the references", "own-caption": "the loss of the clean picture's own caption"}


@dataclass(frozen=True)
class Captioning(WritingTask):
    """What a captioner writes for each image by beam search.

    BLEU, METEOR, ROUGE-L, CIDEr and SPICE hold the captions against the image's texts. METEOR, SPICE and the usual
    tokenizer need Java; without it the others are given, with a plain tokenizer, and the result says so. The attack
    raises the model's loss of the references, or of the caption that it writes for the clean picture. Its success is
    the drop of every score, and the share of captions changed. With a `target` it lowers the loss of that text, and its
    success is the share of pictures for which the text is written (`figures`: "target").

    Rows, one per image: `index`, `image`, `group` (`OneToManyPairs.groups`), `references`, `clean_caption`,
    `clean_loss` (mean loss of the references, nats per token), `robust_caption`, `robust_loss` (None without attack),
    `linf`; with a target `clean_target` and `robust_target`, whether it is written; with `half_first` `half`, whether
    half precision was enough.

    Args:
        objective: what the attack raises: "references" or "own-caption".
        beams: hypotheses kept per image.
        min_length: fewest tokens, prompt and end included.
        max_length: most tokens, the same counted.
        target: a text that the attack is to make the model write for every picture; None: there is none.
        half_first: gradients in half precision first; in single precision where the caption's CIDEr is then still
            `enough`, or does not yet say the target.
        enough: a CIDEr (times 100) below which a caption counts as fallen; 10 for COCO and 2 for Flickr30k in FARE.
    """

    objective: CaptionObjective = "references"
    beams: int = 3
    min_length: int = 5
    max_length: int = 20
    enough: float = 10.0

    name: ClassVar[str] = "captioning"
    heading: ClassVar[str] = "Captioning"
    explained: ClassVar[str] = "Scores times 100, as they are published."
    headline: ClassVar[tuple[str, ...]] = ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "SPICE")
    judged_by: ClassVar[tuple[str, ...]] = ("content", "tokenizer")
    default_batch_size: ClassVar[int] = 16
    models: ClassVar[tuple[str, ...]] = ("captioner",)
    wrote: ClassVar[str] = "It writes"
    people: ClassVar[str] = "People wrote"
    asked: ClassVar[str] = "pictures"

    @classmethod
    def fits(cls, model: object, data: object) -> bool:
        """Return whether the model writes, and the data are images with texts."""
        return isinstance(model, Captioner) and isinstance(data, OneToManyPairs)

    @classmethod
    def prepare(cls, data: Any) -> OneToManyPairs:
        """Return pairs in any form as pairs."""
        return as_pairs(data)

    def check(self, attack: Attack | None, threat: ThreatModel | None) -> None:
        """Refuse a model that does not write, no images, lengths out of range, an attack that does not fit."""
        if not isinstance(self.model, Captioner) or not isinstance(self.model, nn.Module):
            raise WrongKind(f"Expected a Captioner (see crossguard.models), but {type(self.model).__name__} is none.")
        if not self.data.images:
            raise ValueError(f"Expected images, but {self.data.name} ({self.data.split}) has none.")
        if self.beams < 1 or not 1 <= self.min_length <= self.max_length:
            raise ValueError(
                f"Expected beams >= 1 and 1 <= min_length <= max_length, but got {self.beams}, {self.min_length} and "
                f"{self.max_length}."
            )
        check_range(self.enough, "enough", below=math.inf)
        if self.target is not None:
            check_target_text(self.model, self.target, max_length=self.max_length)
        if attack is not None and threat is not None:
            check_caption_attack(attack, threat, self.objective)
        unavailable_metrics()  # raises now where pycocoevalcap is not there

    def facts(self, progress: Reporter) -> dict[str, Any]:
        """Return the fingerprint of the data, the beam search and the prompt."""
        return {
            "content": pairs_fingerprint(self.data, progress=progress),
            "data_notes": list(self.data.notes),
            **{name: getattr(self, name) for name in ("beams", "min_length", "max_length")},
            "prompt": self.model.prompt,
        }

    def attack_facts(self, attack: Any) -> dict[str, Any]:
        """Return the attack's options, and its objective."""
        aim = None if attack is None else self.objective
        told = super().attack_facts(attack) | {"objective": aim}
        if attack is not None and self.target is not None:
            told |= {"objective": "target", "target": self.target}
        if attack is not None and self.half_first:
            told |= {"half_first": True, "enough": self.enough}
        return told

    @property
    def rows(self) -> int:
        """One per image."""
        return len(self.data.images)

    @property
    def samples(self) -> str:
        """Images and references."""
        return f"{len(self.data.images):,} images with {len(self.data.links):,} references"

    def load_batch(self, ids: Int64[np.ndarray, " images"], device: torch.device) -> PairBatch:
        """Decode images, with the references of each; a reference that several share comes once for each of them."""
        ends = [self.data.texts_of(int(image)) for image in ids]
        text_ids = np.concatenate(ends)
        places = np.repeat(np.arange(len(ids)), [len(own) for own in ends])
        return PairBatch(
            pixels=preprocessed(self.model, [self.data.image(int(image)) for image in ids]),
            texts=tuple(self.data.texts[int(text)] for text in text_ids),
            links=torch.from_numpy(np.stack([places, np.arange(len(text_ids))], axis=1)),
            image_ids=torch.from_numpy(ids),
            text_ids=torch.from_numpy(text_ids),
        ).to(device)

    @torch.no_grad()
    def answer(self, batch: PairBatch, found: Arrays | None) -> list[dict[str, Any]]:
        """Return per image the `caption`, and the mean `loss` of the references in nats per token."""
        pixels = batch.pixels if found is None else stored(found).pixels.to(batch.pixels.device)
        losses = caption_objective(self.model, batch.texts, batch.links[:, 0])(pixels)
        return [
            {"caption": caption, "loss": float(loss)}
            for caption, loss in zip(self._written(pixels), losses.cpu(), strict=True)
        ]

    def loss(self, batch: PairBatch, clean: Sequence[Mapping[str, Any]]) -> LossPerSample:
        """Return the loss of the references, or of the captions of the clean images, or of a target, negative."""
        own = [answer["caption"] for answer in clean]
        return captions_loss(self.model, batch, objective=self.objective, own=own, target=self.target)

    @torch.no_grad()
    def fallen(self, batch: PairBatch, pixels: Float[Tensor, "images 3 height width"]) -> Bool[np.ndarray, " images"]:
        """Return which captions have a CIDEr below `enough`, or say the target."""
        written = self._written(pixels)
        if self.target is not None:
            return np.array([says(caption, self.target) for caption in written])
        return self._references.cider(dict(zip(batch.image_ids.tolist(), written, strict=True))) < self.enough

    @cached_property
    def _references(self) -> References:
        texts = [[self.data.texts[int(text)] for text in self.data.texts_of(image)] for image in range(self.rows)]
        return References(texts, tokenizer=choose_tokenizer())

    def _written(self, pixels: Float[Tensor, "images 3 height width"]) -> list[str]:
        written = self.model.generate(pixels, beams=self.beams, min_length=self.min_length, max_length=self.max_length)
        return [" ".join(caption.split()) for caption in written]

    def rows_of(
        self,
        batch: PairBatch,
        clean: Sequence[Mapping[str, Any]],
        robust: Sequence[Mapping[str, Any]] | None,
        found: Arrays | None,
    ) -> list[dict[str, Any]]:
        """Return one row per image."""
        groups = self.data.groups[0]
        rows = []
        for place, image in enumerate(batch.image_ids.tolist()):
            after = None if robust is None else robust[place]
            rows.append(
                {
                    "index": image,
                    "image": self.data.images[image].key,
                    "group": int(groups[image]),
                    "references": [self.data.texts[int(text)] for text in self.data.texts_of(image)],
                    "clean_caption": clean[place]["caption"],
                    "clean_loss": clean[place]["loss"],
                    "robust_caption": None if after is None else after["caption"],
                    "robust_loss": None if after is None else after["loss"],
                    "linf": None if found is None else float(found["linf"][place]),
                }
            )
            if found is not None and "half" in found:
                rows[-1]["half"] = bool(found["half"][place])
            rows[-1] |= self.reached({side: rows[-1][f"{side}_caption"] for side in ("clean", "robust")})
        return rows

    @classmethod
    def ratios(cls, rows: Rows, side: str) -> dict[str, Ratio]:
        """Return nothing: scores are no shares, and are resampled."""
        return {}

    def figures(
        self, rows: Rows, settings: Mapping[str, Any]
    ) -> tuple[Mapping[str, Mapping[str, Estimate | None]], dict[str, Any]]:
        """Return every score that can be computed, drops, the share of changed captions; and resamples for pairing."""
        sides = ["clean"] if settings["attack"] is None else ["clean", "robust"]
        tokenizer = choose_tokenizer()
        references = [row["references"] for row in rows]
        names, member = np.unique([row["group"] for row in rows], return_inverse=True)
        few = len(names) < FEWEST_GROUPS  # of few groups each alone, else resamples of all
        weights = np.eye(len(names)) if few else group_draws(len(names), seed=settings["seed"])
        scores = {s: score_captions(references, [r[f"{s}_caption"] for r in rows], tokenizer=tokenizer) for s in sides}
        missing = {metric: why for found in scores.values() for metric, why in found.missing.items()}
        metrics = [metric for metric in scores["clean"].metrics if metric not in missing]
        points = {s: {m: float(scores[s].overall()[m][0]) for m in metrics} for s in sides}
        drawn = {s: scores[s].overall(weights[:, member]) for s in sides}

        def figure(value: float, values: np.ndarray) -> Estimate:
            by_group = dict(zip(map(str, names), values.tolist(), strict=True)) if few else None
            return bootstrap_figure(value, values, n=len(rows), groups=len(names), by_group=by_group)

        found: dict[str, dict[str, Estimate | None]] = {
            s: {m: figure(points[s][m], drawn[s][m]) for m in metrics} for s in sides
        }
        if "robust" in sides:
            changed = np.array([row["clean_caption"] != row["robust_caption"] for row in rows])
            found["drop"] = {
                m: figure(points["clean"][m] - points["robust"][m], drawn["clean"][m] - drawn["robust"][m])
                for m in metrics
            }
            found["changed"] = {"captions": Ratio.of_hits(changed, names[member]).figure()}
            if "robust_target" in rows[0]:
                reached = np.array([row["robust_target"] for row in rows])
                found["target"] = {"captions": Ratio.of_hits(reached, names[member]).figure()}
        draws = {} if few else {s: {m: drawn[s][m].round(2).tolist() for m in metrics} for s in sides}
        return found, {"draws": draws, "missing": missing, "tokenizer": tokenizer}

    def current(self, entry: Mapping[str, Any]) -> bool:
        """Return whether no more metrics can be computed than when the summary was written."""
        about = entry["about"]
        return bool(about["tokenizer"] == choose_tokenizer() and set(about["missing"]) == set(unavailable_metrics()))

    def notes(self, rows: Rows, settings: Mapping[str, Any]) -> list[str]:
        """Return how captions were written and cut into words, their loss, what the attack raised, what is missing."""
        sides = ("clean", "robust") if settings["attack"] is not None else ("clean",)
        losses = {side: float(np.mean([row[f"{side}_loss"] for row in rows])) for side in sides}
        notes = [
            f"{self.beams} beams, {self.min_length} to {self.max_length} tokens. {WORDS[choose_tokenizer()]} Mean loss "
            f"of the references, in nats per token: "
            f"{', '.join(f'{value:.2f} {side}' for side, value in losses.items())}."
        ]
        if settings["attack"] is not None:
            if self.target is None:
                notes.append(f"The attack raises {AIMS[self.objective]}.")
            else:
                before, after = (sum(row[f"{side}_target"] for row in rows) for side in ("clean", "robust"))
                notes.append(
                    f"The attack lowers the loss of {shown(self.target)}, and succeeds where that is written: for "
                    f"{after} of {len(rows)} pictures, without attack for {before}."
                )
        notes += self.told_half(rows)
        return notes + [f"{metric} is missing: {why}." for metric, why in unavailable_metrics().items()]

    def shown(self, row: Mapping[str, Any]) -> tuple[str, Mapping[str, str], Sequence[str]]:
        """Return what is written for the picture, and its references."""
        return "The picture", {side: row[f"{side}_caption"] for side in ("clean", "robust")}, row["references"]
