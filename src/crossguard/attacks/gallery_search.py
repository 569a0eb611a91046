"""The adaptive search over a whole gallery: stages of texts and of images, each seeing what the ones before left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

import crossguard.attacks.base as attack_base
from crossguard.attacks.ascent import LossPerSample, Pixels
from crossguard.attacks.budget import Budgets
from crossguard.attacks.directions import ImageRetrieval, TextRetrieval
from crossguard.attacks.encode import encode_images
from crossguard.attacks.gallery import SETS, Found, Keep, ReadSet, SetName, Whole
from crossguard.attacks.gallery_scores import GalleryScores, MatchScores, TowerScores, nearest_pairs
from crossguard.attacks.gallery_texts import NOT_KEPT, EncodedOnce, KnownSource, worst_texts
from crossguard.attacks.image_loss import image_loss
from crossguard.attacks.ladder import FIRST, Judged, RowLoss, ascend_in_runs, runs
from crossguard.attacks.mixture import Chosen, Goal, Links, Mixture, Standing
from crossguard.attacks.objectives import Objective, product, unit
from crossguard.attacks.ranking import NEGATIVES, image_states, ranking_scores, text_states
from crossguard.attacks.swap import Order
from crossguard.attacks.text_score import text_score
from crossguard.data import PairBatch
from crossguard.models import FusionModel, States, VisionLanguageModel

KEPT = 8
"""Variants of a text, and the first restart's first run of steps, are what the next stage sees of a gallery: no option
changes that, so that a larger budget meets the very galleries that a smaller one does."""


_OWN: tuple[SetName, SetName] = ("tr", "ir")

LOSSES: dict[str, tuple[str, ...]] = {"tr": ("entropy", "margin"), "ir": ("count", "entropy", "margin")}
"""What is raised in each direction, in turns."""


@dataclass(frozen=True)
class Effort:
    """How much is tried.

    Args:
        rounds: of images and texts.
        steps: of Auto-PGD.
        restarts: starts per round.
        variants: forms of each text that may be chosen: a power of eight.
    """

    rounds: int
    steps: int
    restarts: int
    variants: int

    def smaller(self) -> list["Effort"]:
        """Return the next smaller efforts, one step down in one of the numbers."""
        lengths = runs(self.steps)
        found = [Effort(self.rounds - 1, self.steps, self.restarts, self.variants)] if self.rounds > 1 else []
        if len(lengths) > 1:
            found.append(Effort(self.rounds, sum(lengths[:-1]), self.restarts, self.variants))
        if self.restarts > 1:
            found.append(Effort(self.rounds, self.steps, self.restarts - 1, self.variants))
        if self.variants > 1:
            found.append(Effort(self.rounds, self.steps, self.restarts, self.variants // 8))
        return found


class _Pool:
    """All candidates so far: clean ones first, then as they were found. Equal texts share one embedding.

    Args:
        whole: the gallery.
    """

    def __init__(self, whole: Whole) -> None:
        device = whole.images.device
        images, texts = len(whole.images), len(whole.texts)
        self.images: Float[Tensor, "image_candidates dim"] = whole.images.float()
        self.image_owners: Int64[Tensor, " image_candidates"] = torch.arange(images, device=device)
        self.image_tags: Int64[Tensor, "image_candidates 3"] = torch.zeros(images, 3, dtype=torch.int64, device=device)
        self.image_places: Int64[np.ndarray, "image_candidates 2"] = np.stack(
            [np.full(images, -1), np.arange(images)], axis=1
        )
        self._rows: dict[str, int] = {}
        self.texts: Float[Tensor, "different_texts dim"] = torch.empty(0, whole.texts.shape[1], device=device)
        self.text_rows: Int64[Tensor, " text_candidates"] = torch.empty(0, dtype=torch.int64, device=device)
        self.strings: list[str] = []
        self.text_owners: Int64[Tensor, " text_candidates"] = torch.arange(texts, device=device)
        self.text_tags: Int64[Tensor, "text_candidates 2"] = torch.zeros(texts, 2, dtype=torch.int64, device=device)
        self._known: dict[tuple[int, str], tuple[int, int]] = {
            (text, string): (text, 0) for text, string in enumerate(whole.strings)
        }
        self._add_texts(whole.strings, whole.texts.float())

    def within(self, effort: Effort) -> tuple[Int64[Tensor, " images"], Int64[Tensor, " texts"]]:
        """Return the candidates that a search of some effort would have found."""
        limits = torch.tensor([effort.rounds, len(runs(effort.steps)), effort.restarts], device=self.image_tags.device)
        texts = torch.tensor([effort.rounds, effort.variants], device=self.text_tags.device)
        return (
            (self.image_tags < limits).all(dim=1).nonzero().squeeze(1),
            (self.text_tags < texts).all(dim=1).nonzero().squeeze(1),
        )

    def add(self, found: Found, *, stage: int, turn: int) -> Int64[Tensor, " text_candidates"]:
        """Take in what a stage found for a batch, and return which candidates its texts are.

        A text that was found before, by no greater effort, is no new candidate.
        """
        device = self.images.device

        def on(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(device)

        if len(found.image_owners):
            tags = np.column_stack([np.full(len(found.image_tags), turn), found.image_tags])
            self.images = torch.cat([self.images, on(found.images)])
            self.image_owners = torch.cat([self.image_owners, on(found.image_owners)])
            self.image_tags = torch.cat([self.image_tags, on(tags)])
            places = np.stack([np.full(len(tags), stage), np.arange(len(tags))], axis=1)
            self.image_places = np.concatenate([self.image_places, places])
        candidates: list[int] = []
        new: list[int] = []
        ranks = found.text_ranks.min(axis=1, initial=NOT_KEPT).tolist()
        for row, key in enumerate(zip(found.text_owners.tolist(), found.strings, strict=True)):
            before = self._known.get(key)
            if before is None or before[1] > ranks[row]:
                self._known[key] = before = (len(self.strings) + len(new), ranks[row])
                new.append(row)
            candidates.append(before[0])
        if new:
            self.text_owners = torch.cat([self.text_owners, on(found.text_owners[new])])
            self.text_tags = torch.cat([self.text_tags, torch.tensor([[turn, ranks[r]] for r in new], device=device)])
            self._add_texts([found.strings[row] for row in new], on(found.texts[new]))
        return torch.tensor(candidates, dtype=torch.int64, device=device)

    def _add_texts(self, strings: Sequence[str], embeddings: Float[Tensor, "texts dim"]) -> None:
        first = len(self._rows)
        rows: list[int] = []
        kept: list[int] = []
        for row, string in enumerate(strings):
            if string not in self._rows:
                self._rows[string] = first + len(kept)
                kept.append(row)
            rows.append(self._rows[string])
        self.texts = torch.cat([self.texts, embeddings[kept]])
        self.text_rows = torch.cat([self.text_rows, torch.tensor(rows, dtype=torch.int64, device=self.texts.device)])
        self.strings += strings


class GallerySearch:
    """One attack on one gallery.

    Args:
        model: the victim, frozen.
        whole: the gallery.
        effort: how much is tried.
        budget: within what.
        seed: of the starts.
        objectives: losses to raise beside.
        source: of candidate words.
        order: of words.
        keep: where findings are kept.
        advance: told how many images a stage has finished.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        whole: Whole,
        *,
        effort: Effort,
        budget: Budgets,
        seed: int,
        objectives: Sequence[Objective],
        source: KnownSource,
        order: Order,
        keep: Keep,
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.model, self.whole, self.effort, self.budget, self.seed = model, whole, effort, budget, seed
        self.objectives, self.source, self.order = objectives, source, order
        self.keep, self.advance = keep, advance
        self.links = Links(whole.links, images=len(whole.images), texts=len(whole.texts))
        self.pool = _Pool(whole)
        self.encoded = EncodedOnce(model)
        self.stages: list[str] = []
        self.batch_of = np.zeros(len(whole.images), np.int64)
        for number, (images, _) in enumerate(whole.batches):
            self.batch_of[images.cpu().numpy()] = number
        self._scores: GalleryScores | None = None
        self.goals = _goals(budget)
        self.latest: dict[SetName, tuple[Int64[Tensor, " rows"], Int64[Tensor, " rows"]]] = {}

    def run(self) -> ReadSet:
        """Search, then choose among all that was found."""
        base = Effort(0, FIRST, 1, KEPT)
        clean = self._mixture().clean
        sets: dict[SetName, Chosen] = dict.fromkeys(SETS, clean)
        sets = self._text_stage(sets, 0, base)
        for turn in range(self.effort.rounds):
            base = Effort(turn + 1, base.steps, 1, KEPT)
            sets = self._image_stage(sets, turn, base)
            sets = self._text_stage(sets, turn + 1, base)
        chosen = self._choose()
        return lambda name, number: self._read(chosen[name], number)

    @cached_property
    def _contested(self) -> Links:
        """The pairs that a fusion model is asked about."""
        whole = self.whole
        return nearest_pairs(whole.images, whole.texts, whole.links, negatives=NEGATIVES)

    def _mixture(self) -> Mixture:
        pool = self.pool
        scores: GalleryScores
        if isinstance(self.model, FusionModel):
            scores = MatchScores(
                self.model,
                self._pixels,
                pool.strings,
                pool.image_owners,
                pool.text_owners,
                self._contested,
                self._scores if isinstance(self._scores, MatchScores) else None,
            )
        else:
            scores = TowerScores(pool.images, pool.texts, pool.text_rows, float(self.model.logit_scale.detach()))
        self._scores = scores
        return Mixture(scores, self.links, pool.image_owners, pool.text_owners)

    def _next(self, sets: dict[SetName, Chosen], effort: Effort) -> dict[SetName, Chosen]:
        """Return the sets that the next stage meets."""
        return self._improved(self._mixture(), {name: [chosen] for name, chosen in sets.items()}, effort)

    def _improved(self, mixture: Mixture, starts: dict[SetName, list[Chosen]], effort: Effort) -> dict[SetName, Chosen]:
        images, texts = self.pool.within(effort)
        found: dict[SetName, Chosen] = {}
        for name in _OWN:
            found[name] = mixture.worst(starts[name], self.goals[name], images=images, texts=texts)
        if self.budget.target == "both":
            first = [*starts["shared"], found["tr"], found["ir"]]
            found["shared"] = mixture.worst(first, self.goals["shared"], images=images, texts=texts)
            for name in _OWN:
                found[name] = mixture.best(list(found.values()), self.goals[name], first=found[name])
        else:  # each modality matters for one direction alone
            tr, ir = (found[name] for name in _OWN)
            images_from, texts_from = (tr, ir) if self.budget.target == "query" else (ir, tr)
            found["shared"] = Chosen(images_from.images, texts_from.texts)
        return found

    def _choose(self) -> dict[SetName, Chosen]:
        """Choose from all candidates, by way of what every smaller effort would have chosen."""
        mixture = self._mixture()
        known: dict[Effort, dict[SetName, Chosen]] = {}

        def best(effort: Effort) -> dict[SetName, Chosen]:
            if effort not in known:
                below = [best(smaller) for smaller in effort.smaller()]
                starts = {name: [sets[name] for sets in below] or [mixture.clean] for name in SETS}
                known[effort] = self._improved(mixture, starts, effort)
            return known[effort]

        images, texts = self.budget.moves_images, self.budget.words > 0
        return best(
            Effort(
                self.effort.rounds,
                sum(runs(self.effort.steps)) if images else FIRST,
                self.effort.restarts if images else 1,
                self.effort.variants if texts else 1,
            )
        )

    # Stages

    def _stage(
        self, name: str, turn: int, search: Callable[[int, PairBatch], Found]
    ) -> tuple[Int64[Tensor, " texts"], Int64[np.ndarray, "texts goals"]]:
        """Search every batch that is not kept yet, and take all of them in, in order.

        Returns:
            The texts that were found, as candidates, and their ranks by goal.
        """
        stage, texts, ranks = len(self.stages), [], []
        self.stages.append(name)

        def find(number: int) -> Found:
            return search(number, self.whole.load(number).to(self.whole.images.device))

        self.keep.share(name, range(len(self.whole.batches)), find)
        for number, (images, _) in enumerate(self.whole.batches):
            found = self.keep.read(name, number)
            if found is None:
                found = find(number)
                self.keep.write(name, number, found)
            texts.append(self.pool.add(found, stage=stage, turn=turn))
            ranks.append(found.text_ranks)
            self.advance(len(images))
        return torch.cat(texts), np.concatenate(ranks)

    def _text_stage(self, sets: dict[SetName, Chosen], turn: int, effort: Effort) -> dict[SetName, Chosen]:
        """Attack the texts under the images as they stand; texts of the first stage belong to the first round."""
        if not self.budget.words:
            return sets
        mixture, scores = self._mixture(), self._scores
        assert scores is not None
        wanted = {name: goal for name, goal in self.goals.items() if goal.texts}
        met = {name: (sets[name], mixture.standing(sets[name]), goal) for name, goal in wanted.items()}

        def search(number: int, batch: PairBatch) -> Found:
            more = []
            if self.objectives:
                pixels = self._read(sets["shared"], number)[0].to(batch.pixels.device)
                more = [text_score(self.model, batch, pixels, objective=told) for told in self.objectives]
            return worst_texts(
                self.model,
                batch,
                self.whole.batches[number],
                scores,
                self.links,
                list(met.values()),
                self.pool.images,
                most=max(KEPT, self.effort.variants),
                budget=self.budget,
                encoded=self.encoded,
                source=self.source,
                order=self.order,
                more=more,
            )

        candidates, ranks = self._stage(f"texts-{turn}", max(0, turn - 1), search)
        for name, column in zip(wanted, ranks.T, strict=False):  # of other objectives, behind, a set knows nothing
            kept = torch.from_numpy(column).to(candidates.device)
            self.latest[name] = (candidates[kept < KEPT], kept[kept < KEPT])
        return self._next(sets, Effort(max(1, effort.rounds), effort.steps, 1, KEPT))

    def _image_stage(self, sets: dict[SetName, Chosen], turn: int, effort: Effort) -> dict[SetName, Chosen]:
        """Raise each direction's losses of the images, from where they stand or from random starts."""
        if not self.budget.moves_images:
            return sets
        mixture = self._mixture()
        wanted: list[SetName] = [name for name in _OWN if self.goals[name].images]
        standings = {name: mixture.standing(sets[name]) for name in wanted}

        def search(number: int, batch: PairBatch) -> Found:
            with torch.no_grad():
                losses = {name: self._loss(name, sets[name], standings[name], number, mixture) for name in wanted}
            met = {name: self._read(sets[name], number) for name in wanted} if turn or self.objectives else {}
            parts = []
            for restart in range(self.effort.restarts):
                ball = self.budget.ball(self.model, batch.pixels)
                drawn = ball.start(batch.image_ids, seed=self.seed, stream=turn * 1000 + restart)
                from_there = bool(turn) and not restart
                starts = {name: met[name][0].to(drawn.device) if from_there else drawn for name in wanted}
                parts.append((restart, batch, *self._directions(starts, losses, turn, restart)))
                for told in self.objectives:
                    name = wanted[-1]
                    plain = image_loss(self.model, batch, met[name][1], objective=told)
                    parts.append((restart, batch, starts[name], _alone(plain)))
            return self._images_found(parts, self.whole.batches[number][0])

        self._stage(f"images-{turn}", turn, search)
        return self._next(sets, effort)

    def _directions(
        self, starts: dict[SetName, Pixels], losses: dict[SetName, "_BatchLoss"], turn: int, restart: int
    ) -> tuple[Float[Tensor, "rows 3 height width"], RowLoss]:
        """Return one start for each direction, all in the same forwards, and their losses."""
        images = len(next(iter(starts.values())))
        names = list(losses)
        # Counted texts are what a set is judged by: every round raises them; the other losses come with restarts.
        place = {"tr": turn + restart, "ir": restart}
        kinds = [LOSSES[name][place[name] % len(LOSSES[name])] for name in names]

        def loss(pixels: Pixels, rows: Int64[Tensor, " rows"]) -> Judged:
            with attack_base.fast_precision(pixels.device):
                states = image_states(self.model, pixels)
            value = torch.zeros(len(rows), device=pixels.device)
            judged, done = torch.zeros_like(value), torch.zeros_like(value, dtype=torch.bool)
            for place, (name, kind) in enumerate(zip(names, kinds, strict=True)):
                here = (rows // images == place).nonzero().squeeze(1)
                if len(here):
                    told = losses[name](states.select(here), rows[here] % images)
                    value = value.index_put((here,), told[kind])
                    judged[here], done[here] = told["judge"].detach(), told["done"].detach() > 0
            return value, judged, done

        return torch.cat(list(starts.values())), loss

    def _images_found(
        self, parts: Sequence[tuple[int, PairBatch, Tensor, RowLoss]], places: Int64[Tensor, " _"]
    ) -> Found:
        """Ascend from all starts, and return what was best after every run of steps."""
        found = []
        for restart, batch, start, loss in parts:
            again = len(start) // len(places)
            ball, owners = self.budget.ball(self.model, batch.pixels.repeat(again, 1, 1, 1)), places.repeat(again)
            for run, rows, best in ascend_in_runs(loss, ball, start, steps=self.effort.steps):
                if len(rows):
                    best = ball.rows(rows).to_pixels(best)
                    grey = (best * 255).round().to(torch.uint8).cpu().numpy()
                    embedded = encode_images(self.model, best).cpu().numpy()
                    tags = np.tile([run, restart], (len(rows), 1))
                    found.append((owners[rows].cpu().numpy(), tags, grey, embedded))
        owned, tags, grey, images = (np.concatenate(values) for values in zip(*found, strict=True))
        return Found(
            image_owners=owned,
            image_tags=tags,
            grey=grey,
            images=images,
            text_owners=np.empty(0, np.int64),
            text_ranks=np.empty((0, 0), np.int64),
            strings=(),
            texts=np.empty((0, images.shape[1]), np.float32),
        )

    def _loss(
        self, name: SetName, chosen: Chosen, stands: tuple[Standing, Standing], number: int, mixture: Mixture
    ) -> "_BatchLoss":
        images, texts = self.whole.batches[number]
        columns = torch.arange(len(self.whole.texts), device=images.device)
        among = self.links.among(images)
        if isinstance(self.model, FusionModel):
            contested = self._contested.among(images)
            columns = contested.any(dim=0).nonzero().squeeze(1)
            states = text_states(self.model, [self.pool.strings[j] for j in chosen.texts[columns].tolist()])
            place = torch.searchsorted(columns, texts)
            score: _TowerScore | _MatchScore = _MatchScore(self.model, states, contested[:, columns], place)
            variants = chosen.texts[texts][:, None]
        else:
            variants = self._variants(name, chosen, texts)
            score = _TowerScore(
                unit(self.pool.texts[self.pool.text_rows[variants.flatten()]]).unflatten(0, variants.shape),
                unit(self.pool.texts[self.pool.text_rows[chosen.texts]]),
                float(self.model.logit_scale.detach()),
            )
        if name == "tr":
            return _BatchLoss(score, TextRetrieval(among[:, texts], among[:, columns]))
        told = ImageRetrieval.of(mixture.scores, self.links, chosen, stands[1], (images, texts), variants, columns)
        return _BatchLoss(score, told)

    def _variants(
        self, name: SetName, chosen: Chosen, texts: Int64[Tensor, " texts"]
    ) -> Int64[Tensor, "texts variants"]:
        """Return the present form of some texts, and the worst that the latest stage found, as candidates."""
        present = chosen.texts[texts][:, None]
        if name not in self.latest:
            return present
        rows, ranks = self.latest[name]
        owners = self.pool.text_owners[rows]
        place = torch.searchsorted(texts, owners).clamp(max=len(texts) - 1)
        here = texts[place] == owners
        table = present.repeat(1, 1 + KEPT)
        table[place[here], 1 + ranks[here]] = rows[here]
        return table

    # Pixels

    def _read(self, chosen: Chosen, number: int) -> tuple[Pixels, tuple[str, ...]]:
        """Return the pixels and texts of a batch in a set."""
        images, texts = self.whole.batches[number]
        picked = chosen.images[images].cpu().numpy()
        pixels = self._pixels(picked)
        return pixels, tuple(self.pool.strings[j] for j in chosen.texts[texts].tolist())

    def _pixels(self, candidates: Int64[np.ndarray, " some"]) -> Pixels:
        """Return the pixels of some candidates, on the CPU."""
        owners = self.pool.image_owners.cpu().numpy()[candidates]
        stages, rows = self.pool.image_places[candidates].T
        found: Pixels | None = None
        for stage, number in {
            (int(s), int(self.batch_of[i]) if s >= 0 else 0) for s, i in zip(stages, owners, strict=True)
        }:
            here = np.flatnonzero((stages == stage) & ((self.batch_of[owners] == number) | (stage < 0)))
            if stage < 0:
                part = self.whole.read_pixels(owners[here])
            else:
                kept = self.keep.read(self.stages[stage], number)
                if kept is None:
                    raise ValueError(
                        f"Expected what {self.stages[stage]} found for batch {number}, but it is gone: run again."
                    )
                part = torch.from_numpy(kept.grey[rows[here]]).float() / 255
            if found is None:
                found = torch.empty(len(candidates), *part.shape[1:])
            found[torch.from_numpy(here)] = part.cpu()
        assert found is not None
        return found


def _goals(budget: Budgets) -> dict[SetName, Goal]:
    """Return what each set is to be worst for; only what an attacked side of retrieval holds may be replaced."""
    pixels, words = budget.moves_images, budget.words > 0
    queries, gallery = budget.target != "gallery", budget.target != "query"
    goals: dict[SetName, Goal] = {
        "tr": Goal(1.0, 0.0, images=pixels and queries, texts=words and gallery),
        "ir": Goal(0.0, 1.0, images=pixels and gallery, texts=words and queries),
    }
    if budget.target == "both":
        goals["shared"] = Goal(1.0, 1.0, images=pixels, texts=words)
    return goals


@dataclass(frozen=True)
class _TowerScore:
    """Scores of moving images with the variants of their batch's texts and with the gallery's texts."""

    variants: Float[Tensor, "texts variants dim"]
    texts: Float[Tensor, "gallery dim"]
    scale: float

    def __call__(self, images: States, rows: Int64[Tensor, " rows"]) -> tuple[Tensor, Tensor]:
        moved = self.scale * unit(images.embedding.float())
        mine = product(moved, self.variants.flatten(0, 1).T).unflatten(1, self.variants.shape[:2])
        return mine, product(moved, self.texts.T)


@dataclass(frozen=True)
class _MatchScore:
    """The same by match, among contested pairs."""

    model: FusionModel
    texts: States
    contested: Bool[Tensor, "images gallery"]
    place: Int64[Tensor, " texts"]

    def __call__(self, images: States, rows: Int64[Tensor, " rows"]) -> tuple[Tensor, Tensor]:
        found = ranking_scores(self.model, images, self.texts, self.contested[rows])
        return found[:, self.place, None], found


@dataclass(frozen=True)
class _BatchLoss:
    """The losses of a batch's images in one direction."""

    score: _TowerScore | _MatchScore
    retrieval: TextRetrieval | ImageRetrieval

    def __call__(self, images: States, rows: Int64[Tensor, " rows"]) -> dict[str, Float[Tensor, " rows"]]:
        return self.retrieval(*self.score(images, rows), rows)


def _alone(loss: LossPerSample) -> RowLoss:
    """Turn a loss of whole batches into one of rows, none of which is ever done."""

    def judged(pixels: Pixels, rows: Int64[Tensor, " rows"]) -> Judged:
        value = loss(pixels)
        return value, value, torch.zeros_like(value, dtype=torch.bool)

    return judged
