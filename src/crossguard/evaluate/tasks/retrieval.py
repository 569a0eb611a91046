"""Text and image retrieval: each image asks for its texts, each text for its images, among all of the data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float32, Int64

from crossguard.attacks.base import Attack
from crossguard.attacks.gallery import GalleryAttack, SetName
from crossguard.attacks.saved import Saved
from crossguard.attacks.saved_set import check_savable
from crossguard.attacks.table import ATTACKS
from crossguard.checks import WrongKind, shown
from crossguard.data import OneToManyPairs, as_pairs
from crossguard.evaluate.aim import Aim
from crossguard.evaluate.batches import KeptPixels, linked_groups, pair_batch
from crossguard.evaluate.examples import Example, Item, Picture, spread_evenly
from crossguard.evaluate.features import attacked_texts, check_model, clean_side, encode_images
from crossguard.evaluate.fingerprint import digest, pairs_fingerprint
from crossguard.evaluate.gallery_attack import attack_gallery, set_stores
from crossguard.evaluate.ranking import (
    ByDirection,
    CosineRanking,
    Matching,
    MatchRanking,
    Ranking,
    Side,
    candidates_of,
)
from crossguard.evaluate.retrieval import DIRECTIONS, Direction, cuts
from crossguard.evaluate.sanity import FEWEST, warn_of_few_words, warn_of_ignored, warn_of_masking
from crossguard.evaluate.saving import check_target, save_found
from crossguard.evaluate.statistics import Estimate, Ratio
from crossguard.evaluate.store import Store
from crossguard.evaluate.stored_batch import StoredBatch, stored_pixels
from crossguard.evaluate.task import Asked, Part, Rows, Task, check_budgets
from crossguard.models.unseen import cut_texts, linked_as_read
from crossguard.progress import Reporter
from crossguard.threat import ThreatModel
from crossguard.world import World

OWN = ("own_clean", "own_robust")
"""What ranks by the data's own links are called in rows, of data with judged links beside."""
TOP = 5
"""How many results an example shows."""


@dataclass(frozen=True)
class Edits:
    """What an attack changed, by index in the data set.

    Args:
        texts: the texts as it left them.
        words: words edited.
        linf: largest change of a pixel of each image, in [0, 1].
    """

    texts: tuple[str, ...]
    words: Int64[np.ndarray, " texts"]
    linf: Float32[np.ndarray, " images"]

    @classmethod
    def none(cls, pairs: OneToManyPairs) -> "Edits":
        """Return that nothing was changed."""
        return cls(tuple(pairs.texts), np.zeros(len(pairs.texts), np.int64), np.zeros(len(pairs.images), np.float32))


@dataclass(frozen=True)
class _Ranked:
    """How a part ended: rankings before and under one set of images and texts, and what that set changed."""

    before: Ranking
    after: Ranking
    edits: Edits


@dataclass(frozen=True)
class Retrieval(Task):
    """Text retrieval (an image asks for its texts) and image retrieval (a text asks for its images).

    Every image is attacked together with all of its texts, and every text once, under all of its images (see
    `linked_groups`). Texts that the model cannot tell apart are right for each other's images (see `linked_as_read`).
    Whom the attack changes is `threat.target`: "both" asks adversarial queries of an adversarial gallery, "query"
    adversarial queries of the clean gallery, "gallery" clean queries of an adversarial gallery. An attack on the whole
    gallery ("adaptive") makes a set for each direction, under which `robust` is, and one that is worst for both
    (`shared`).

    Rows, one per query, all of direction "tr" before all of "ir", in the order of the data: `direction`, `index`,
    `query` (image key or text), `group` (`OneToManyPairs.groups`), `clean_rank`, `robust_rank` and `shared_rank` (from
    1; the latter two None without attack), of data with judged links `own_clean_rank` and `own_robust_rank` (by the
    data's own links alone), and of the query as it was asked under attack `linf` (images), `words` and
    `adversarial_text` (texts).

    With `target_text` every image, as a query, is moved towards that text; with `target_image` every text towards that
    image. The attack succeeds on a query that then finds the chosen item before all others (`figures`: "target", over
    the queries that it does not belong to anyway). Rows of such queries have its rank, `clean_target_rank` and
    `robust_target_rank`.

    Args:
        target_text: a text of the data that images are to find; None: there is none.
        target_image: the key of an image of the data that texts are to find; None: there is none.
        rerank: how many of each query's best by cosine a fusion model re-ranks by match; 0 ranks by cosine alone;
            None: 128 for fusion models (papers take 256 for COCO), 0 for others.
    """

    rerank: int | None = None
    target_text: str | None = None
    target_image: str | None = None

    name: ClassVar[str] = "retrieval"
    heading: ClassVar[str] = "Retrieval"
    explained: ClassVar[str] = (
        "TR@K is the share of images with at least one own text among the first K of all texts; IR@K the share of "
        "texts with one of their images among the first K of all images. A text or image with the same score as the "
        "right one counts as ranked before it."
    )
    headline: ClassVar[tuple[str, ...]] = ("tr@1", "ir@1")
    default_batch_size: ClassVar[int] = 64
    _memory: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def fits(cls, model: object, data: object) -> bool:
        """Return whether the model has an encoder for either side, and the data are pairs."""
        if not isinstance(data, OneToManyPairs):
            return False
        try:
            check_model(model)
        except WrongKind:
            return False
        return True

    @classmethod
    def prepare(cls, data: Any) -> OneToManyPairs:
        """Return pairs in any form as pairs."""
        return as_pairs(data)

    def check(self, attack: Attack | None, threat: ThreatModel | None) -> None:
        """Refuse a model without the members of the protocol, no pairs, and budgets that the attack cannot use."""
        check_model(self.model)
        if not self.data.images or not self.data.texts:
            raise ValueError(
                f"Expected pairs to evaluate, but {self.data.name} ({self.data.split}) has "
                f"{len(self.data.images)} images and {len(self.data.texts)} texts."
            )
        candidates_of(self.model, self.rerank)
        check_budgets(attack, threat)
        if self.aim is not None and attack is not None and threat is not None:
            self._check_aim(attack, threat, self.aim)
        if isinstance(attack, Saved) and threat is not None:
            attack.check(self.model, self.data, threat)

    @cached_property
    def aim(self) -> Aim | None:
        """What queries are to find."""
        if self.target_text is not None and self.target_image is not None:
            raise ValueError("Expected `target_text` or `target_image`, one after the other, but got both.")
        if self.target_text is not None:
            return Aim.at_text(self.model, self.data, self.target_text)
        return None if self.target_image is None else Aim.at_image(self.data, self.target_image)

    def _check_aim(self, attack: Attack, threat: ThreatModel, aim: Aim) -> None:
        """Refuse an attack that does not aim, an attacked gallery, and another budget than that of the queries."""
        if not attack.aims:
            able = ", ".join(name for name, row in ATTACKS.items() if getattr(row.build, "aims", False))
            raise ValueError(
                f"Expected an attack that can aim at a chosen text or image ({able}), but got {attack.name!r}."
            )
        if threat.target != "query":
            raise ValueError(
                "Expected target='query' in the threat, since queries are moved towards a chosen item of the gallery, "
                f"but got {threat.target!r}."
            )
        option, asking = {"tr": ("target_text", "image"), "ir": ("target_image", "text")}[aim.direction]
        if set(threat) != {asking}:
            raise ValueError(
                f"Expected a budget of the {asking} alone with `{option}`, which {asking}s are to find, but got the "
                f"threat '{threat}'."
            )

    def attack_facts(self, attack: Any) -> dict[str, Any]:
        """Return the attack's options, and what queries are to find."""
        told = super().attack_facts(attack)
        if attack is not None and self.aim is not None:
            told |= {"target_text": self.target_text, "target_image": self.target_image}
        return told

    def facts(self, progress: Reporter) -> dict[str, Any]:
        """Return the fingerprint of the data, and how many candidates are re-ranked."""
        return {
            "content": pairs_fingerprint(self.data, progress=progress),
            "data_notes": list(self.data.notes),
            "rerank": self.candidates,
        }

    @property
    def candidates(self) -> int:
        """How many items per query are re-ranked by match; 0: none."""
        return candidates_of(self.model, self.rerank)

    @cached_property
    def read(self) -> OneToManyPairs:
        """The data as the model reads them: texts that it cannot tell apart are linked to the same images."""
        return linked_as_read(self.model, self.data)

    @cached_property
    def batches(self) -> list[Int64[np.ndarray, " images"]]:
        """Images that no link leaves."""
        return linked_groups(self.read, batch_size=self.batch_size)

    @property
    def rows(self) -> int:
        """One per image and one per text."""
        return len(self.data.images) + len(self.data.texts)

    @property
    def samples(self) -> str:
        """Images and texts."""
        return f"{len(self.data.images):,} images and {len(self.data.texts):,} texts"

    @classmethod
    def key(cls, row: Mapping[str, Any]) -> tuple[int, int]:
        """Return the direction's place and the query's index."""
        return DIRECTIONS.index(row["direction"]), int(row["index"])

    def carry_out(self, asked: Asked, parts: Sequence[Part]) -> None:
        """Attack every batch that is not stored yet, then rank everything at once."""
        clean = self._once("clean", lambda: self._clean(asked))
        links = torch.tensor(self.read.links, device=asked.device)
        own_links = None if self.data.own_links is None else torch.tensor(self.data.own_links, device=asked.device)
        for part in parts:
            decides = {key: part.settings[key] for key in ("weights", "content")}
            before = self._once("ranked", partial(self._ranking, asked, part, "clean", decides, clean, clean, links))
            read = None if own_links is None else CosineRanking(clean, clean, own_links, asked.world).ranks
            if part.attack is None:
                if asked.world.main:
                    part.keep(self._rows(before.ranks, None, Edits.none(self.data), own=(read, None)), self.key)
                continue
            sets = self._attacked(asked, part, clean)
            target = part.threat.target if part.threat is not None else "both"

            def ranked(
                name: SetName,
                directions: Sequence[Direction] = DIRECTIONS,
                *,
                part: Part = part,
                target: str = target,
                sets: Mapping[SetName, tuple[Side, Edits]] = sets,
            ) -> Ranking:
                attacked = sets[name][0]
                queries = clean if target == "gallery" else attacked
                gallery = clean if target == "query" else attacked
                title = part.part if name == "shared" else f"{part.part}-{name}"
                return self._ranking(asked, part, title, part.settings, queries, gallery, links, directions)

            shared = ranked("shared")
            own = ByDirection({name: ranked(name, (name,)) for name in DIRECTIONS}) if len(sets) > 1 else shared
            queries = Edits.none(self.data)
            if target != "gallery":  # images as they ask for texts, texts as they ask for images
                images, texts = (sets.get(name, sets["shared"])[1] for name in DIRECTIONS)
                queries = Edits(texts.texts, texts.words, images.linf)
            again = None
            if own_links is not None:
                again = {
                    name: self._own_ranks(sets, name, target, clean, own_links, asked.world) for name in DIRECTIONS
                }
            rows = self._rows(before.ranks, own.ranks, queries, shared.ranks, own=(read, again))
            if self.aim is not None:
                sides = {"clean": clean, "robust": sets["shared"][0]}
                self._add_target(rows, self.aim, asked, part, sides, clean)
            if asked.world.main:
                part.keep(rows, self.key)
            self._memory["ended", part.label, part.part] = _Ranked(before, shared, sets["shared"][1])

    def _add_target(
        self,
        rows: list[dict[str, Any]],
        aim: Aim,
        asked: Asked,
        part: Part,
        queries: Mapping[str, Side],
        gallery: Side,
    ) -> None:
        """Tell of the queries that do not own a chosen item at which rank they find it."""
        links, own = aim.links(asked.device), set(aim.owners.tolist())
        for side, asking in queries.items():
            what = f"{part.part}-{aim.direction}-target-{side}"
            ranking = self._ranking(asked, part, what, part.settings, asking, gallery, links, (aim.direction,))
            ranks = ranking.ranks[aim.direction].tolist()
            for row in rows:
                if row["direction"] == aim.direction and row["index"] not in own:
                    row[f"{side}_target_rank"] = ranks[row["index"]]

    def _own_ranks(
        self,
        sets: Mapping[SetName, tuple[Side, Edits]],
        name: Direction,
        target: str,
        clean: Side,
        links: Int64[torch.Tensor, "links 2"],
        world: World,
    ) -> torch.Tensor:
        """Return the ranks by cosine of a direction's queries, by the data's own links."""
        attacked = sets.get(name, sets["shared"])[0]
        queries, gallery = (clean if target == "gallery" else attacked), (clean if target == "query" else attacked)
        return CosineRanking(queries, gallery, links, world).ranks[name]

    def _once(self, name: str, make: Any) -> Any:
        if name not in self._memory:
            self._memory[name] = make()
        return self._memory[name]

    def _clean(self, asked: Asked) -> Side:
        return clean_side(
            self.model,
            self.data,
            self.batches,
            batch_size=self.batch_size,
            device=asked.device,
            progress=asked.progress,
            world=asked.world,
            kept=self._pixels,
        )

    @cached_property
    def _pixels(self) -> KeptPixels:
        return KeptPixels(self.model, self.data)

    def _ranking(
        self,
        asked: Asked,
        part: Part,
        what: str,
        decides: Mapping[str, Any],
        queries: Side,
        gallery: Side,
        links: Int64[torch.Tensor, "links 2"],
        directions: Sequence[Direction] = DIRECTIONS,
    ) -> Ranking:
        """Rank by cosine, or by match where the model re-ranks; a run keeps match scores as soon as they are there."""
        if not self.candidates:
            return CosineRanking(queries, gallery, links, asked.world, directions)
        folder = None if part.scratch is None else part.scratch / f"{what}-{digest(decides)[:12]}"
        matching = Matching(
            self.model, self.candidates, self.batch_size, asked.device, asked.progress, folder, asked.world
        )
        title = f"Match {part.label} ({what})"
        return MatchRanking(queries, gallery, links, matching, title=title, directions=directions)

    def _attacked(self, asked: Asked, part: Part, clean: Side) -> dict[SetName, tuple[Side, Edits]]:
        """Attack every batch that is not stored yet, and embed what came out: one set, or one for each direction
        beside."""
        assert part.threat is not None
        attack = part.attack
        title = f"Attack {part.label} with {attack.name} ({part.part})"
        if isinstance(attack, GalleryAttack) and isinstance(attack, Attack):
            attack_gallery(
                self.model,
                self.read,
                attack,
                part.threat,
                part.store,
                self.batches,
                clean,
                seed=asked.seed,
                progress=asked.progress,
                title=title,
                kept_pixels=self._pixels,
                world=asked.world,
            )
            return {name: self._as_attacked(kept, clean, asked.world) for name, kept in set_stores(part.store).items()}
        chosen = None if self.aim is None else self.aim.chosen(self.model, clean, asked.device)
        with asked.progress.task(title, total=len(self.data.images)) as task:
            for number, ids in asked.world.deal(
                list(enumerate(self.batches)), passed=lambda one: task.advance(len(one[1]))
            ):
                stored = part.store.read(number, ids)
                batch = pair_batch(self.model, self.read, ids, kept=self._pixels)
                if stored is None or StoredBatch.of_arrays(stored).beyond_budget(self.model, batch, part.threat):
                    aimed = {} if chosen is None else {"chosen": chosen}
                    found = attack(self.model, batch.to(asked.device), threat=part.threat, seed=asked.seed, **aimed)
                    part.store.write(number, ids, StoredBatch.from_attack(batch, found).arrays())
                task.advance(len(ids))
        return {"shared": self._as_attacked(part.store, clean, asked.world)}

    def _as_attacked(self, store: Store, clean: Side, world: World) -> tuple[Side, Edits]:
        """Embed a stored set; what is unchanged keeps its embedding."""
        device = clean.images.device
        images = clean.images.clone()
        texts = list(self.data.texts)
        words = np.zeros(len(texts), np.int64)
        linf = np.zeros(len(self.data.images), np.float32)

        def embed(number: int) -> tuple[torch.Tensor, StoredBatch]:
            stored = StoredBatch.of_arrays(store.expect(number, self.batches[number]))
            moved = torch.from_numpy(stored.linf > 0)
            found = clean.images[:0].cpu()
            if moved.any():
                pixels = stored.pixels[moved]
                found = encode_images(self.model, pixels, batch_size=self.batch_size, device=device).cpu()
            return found, replace(stored, grey=stored.grey[:0])

        for found, stored in world.each(range(len(self.batches)), embed):
            images[torch.from_numpy(stored.image_ids[stored.linf > 0]).to(device)] = found.to(device)
            for index, text in zip(stored.text_ids, stored.texts, strict=True):
                texts[index] = text
            words[stored.text_ids] = stored.words
            linf[stored.image_ids] = stored.linf
        embedded = attacked_texts(
            self.model, clean.texts, self.data.texts, texts, batch_size=4 * self.batch_size, world=world
        )
        side = Side(images, embedded, stored_pixels(store, self.batches), tuple(texts))
        return side, Edits(tuple(texts), words, linf)

    def _rows(
        self,
        clean: Mapping[Direction, torch.Tensor],
        robust: Mapping[Direction, torch.Tensor] | None,
        edits: Edits,
        shared: Mapping[Direction, torch.Tensor] | None = None,
        own: tuple[Mapping[Direction, torch.Tensor] | None, ...] = (None, None),
    ) -> list[dict[str, Any]]:
        """Return one row per query, both directions.

        Args:
            clean: ranks [queries] by direction.
            robust: the same under attack; None without.
            edits: what the attack changed of the queries.
            shared: ranks under one set for both directions, where `robust` has each under its own.
            own: ranks by the data's own links, without and under attack; None where all links are.
        """
        attacked = robust is not None
        rows = []
        for direction, groups in zip(DIRECTIONS, self.read.groups, strict=True):
            before = clean[direction].tolist()
            after = robust[direction].tolist() if robust is not None else [None] * len(before)
            one_set = after if shared is None else shared[direction].tolist()
            asks_image = direction == "tr"
            for index, (clean_rank, robust_rank, shared_rank) in enumerate(zip(before, after, one_set, strict=True)):
                rows.append(
                    {
                        "direction": direction,
                        "index": index,
                        "query": self.data.images[index].key if asks_image else self.data.texts[index],
                        "group": int(groups[index]),
                        "clean_rank": clean_rank,
                        "robust_rank": robust_rank,
                        "shared_rank": shared_rank,
                        "linf": float(edits.linf[index]) if asks_image and attacked else None,
                        "words": int(edits.words[index]) if not asks_image and attacked else None,
                        "adversarial_text": edits.texts[index] if not asks_image and attacked else None,
                    }
                )
        for name, ranks in zip(OWN, own, strict=True):
            told = [rank for direction in DIRECTIONS for rank in ranks[direction].tolist()] if ranks is not None else []
            for row, rank in zip(rows, told, strict=False):
                row[f"{name}_rank"] = rank
        return rows

    @property
    def sides(self) -> tuple[str, ...]:
        """One set for both directions."""
        return ("shared",)

    @classmethod
    def ratios(cls, rows: Rows, side: str) -> dict[str, Ratio]:
        """Return which queries find a partner among the first K, in groups of linked images and texts."""
        by_direction = {d: [row for row in rows if row["direction"] == d] for d in DIRECTIONS}
        ranks = {d: np.array([row[f"{side}_rank"] for row in found]) for d, found in by_direction.items()}
        groups = {d: np.array([row["group"] for row in found]) for d, found in by_direction.items()}
        return {metric: Ratio.of_hits(ranks[d] <= cut, groups[d]) for metric, d, cut in cuts()}

    def estimates(self, rows: Rows, settings: Mapping[str, Any]) -> dict[str, dict[str, Estimate | None]]:
        """Return all figures; with a chosen item, the share of queries that find it among the first K."""
        found = super().estimates(rows, settings)
        reached = [row for row in rows if row.get("robust_target_rank") is not None]
        if reached:
            ranks, groups = (np.array([row[key] for row in reached]) for key in ("robust_target_rank", "group"))
            found["target"] = {
                metric: Ratio.of_hits(ranks <= cut, groups).figure()
                for metric, direction, cut in cuts()
                if direction == reached[0]["direction"]
            }
        return found

    def warnings(self, attack: Attack | None, threat: ThreatModel | None) -> list[str]:
        """Return what `evaluate.sanity` warns of."""
        clean: Side = self._memory["clean"]
        found: list[str] = self._once("ignored", lambda: warn_of_ignored(clean.images, clean.texts))
        if attack is None or threat is None:
            return found
        few = self._once("few", lambda: pair_batch(self.model, self.read, self.batches[0][:FEWEST], kept=self._pixels))
        for modality in ("image", "text"):
            if modality in threat:
                masking = partial(warn_of_masking, self.model, few.to(clean.images.device), modalities=(modality,))
                found = found + self._once(f"masked {modality}", masking)
        words = threat.get("text")
        if words is not None and getattr(words, "kinds", None) != ("deletion",):
            few_words = partial(warn_of_few_words, attack, self.data.texts, self.model)
            found = found + self._once(f"words {attack.name}", few_words)
        return found

    def notes(self, rows: Rows, settings: Mapping[str, Any]) -> list[str]:
        """Return how many texts are cut or cannot be told from others, and what the data's own links say."""
        told = [f"{note}." for note in self.read.notes[len(self.data.notes) :]]
        if self.data.own_links is not None:
            sides = OWN if settings["attack"] is not None else OWN[:1]
            by_own = [self.ratios(rows, side) for side in sides]
            said = ", ".join(
                f"{metric} " + " -> ".join(str(found[metric].figure()) for found in by_own) for metric in self.headline
            )
            told.append(f"All links count, the judged ones too. By the data's own links alone, by cosine: {said}.")
        reached = [row for row in rows if row.get("robust_target_rank") is not None]
        if self.aim is not None and reached:
            asking = {"tr": "images", "ir": "texts"}[self.aim.direction]
            before, after = (sum(row[f"{side}_target_rank"] == 1 for row in reached) for side in ("clean", "robust"))
            told.append(
                f"The attack moves {asking} towards {shown(self.aim.called)}, and succeeds where that is found first: "
                f"by {after} of {len(reached)}, without attack by {before}."
            )
        cut = self._once("cut", lambda: cut_texts(self.model, self.data.texts))
        if cut:
            reads = f"{self.model.context_length} tokens that the model reads"
            told.append(f"{len(cut)} of {len(self.data.texts)} texts are longer than the {reads}, and are cut.")
        return told

    def examples(self, rows: Rows, part: Part, *, count: int) -> tuple[Example, ...]:
        """Return queries of each direction, evenly spaced among those that are right without attack."""
        ended: _Ranked | None = self._memory.pop(("ended", part.label, part.part), None)
        if ended is None or part.threat is None:
            return ()
        chosen = []
        for direction in DIRECTIONS:
            right = torch.nonzero(ended.before.ranks[direction] == 1).flatten().tolist()
            chosen += [(direction, query) for query in spread_evenly(right, count=count)]
        shown = {
            (direction, query): [ranking.top(direction, query, count=TOP) for ranking in (ended.before, ended.after)]
            for direction, query in chosen
        }
        images = {query for direction, query in chosen if direction == "tr"}
        images |= {int(i) for (d, _), tops in shown.items() if d == "ir" for top in tops for i in top}
        images |= {int(self.read.images_of(query)[0]) for direction, query in chosen if direction == "ir"}
        pictures = self._pictures(part, sorted(images))
        made = [self._example(part.threat, ended, pictures, d, query, *shown[d, query]) for d, query in chosen]
        return tuple(made)

    def _pictures(self, part: Part, wanted: Sequence[int]) -> dict[int, tuple[Picture, Picture]]:
        """Return the clean and the adversarial picture of some images."""
        found = {}
        for number, ids in enumerate(self.batches):
            here = np.array([i for i in wanted if i in ids], dtype=np.int64)
            if not len(here):
                continue
            stored = StoredBatch.of_arrays(part.store.expect(number, ids))
            sources = (self._pixels(here) * 255).round().to(torch.uint8)
            for place, index in enumerate(here.tolist()):
                adversarial = stored.grey[np.searchsorted(stored.image_ids, index)]
                clean = sources[place].permute(1, 2, 0).numpy().copy()
                found[index] = (clean, adversarial.transpose(1, 2, 0).copy())
        return found

    def _example(
        self,
        threat: ThreatModel,
        ended: _Ranked,
        pictures: Mapping[int, tuple[Picture, Picture]],
        direction: Direction,
        query: int,
        before: Sequence[int],
        after: Sequence[int],
    ) -> Example:
        asks_attacked, gallery_attacked = threat.target != "gallery", threat.target != "query"
        own = self.read.texts_of(query) if direction == "tr" else self.read.images_of(query)
        partners = {int(i) for i in own}
        adversarial = ended.edits.texts

        def picture(index: int, *, attacked: bool, title: str = "", right: bool | None = None) -> Item:
            clean, changed = pictures[index]
            if not attacked or "image" not in threat:
                return Item(title, picture=clean, right=right)
            beside = clean if right is None else None  # answers are shown small, without their difference
            return Item(title, picture=changed, clean=beside, right=right)

        def answers(found: Sequence[int], *, attacked: bool) -> tuple[Item, ...]:
            if direction == "ir":
                return tuple(picture(i, attacked=attacked, right=i in partners) for i in found)
            return tuple(
                Item(
                    text=adversarial[i] if attacked else self.data.texts[i],
                    source=self.data.texts[i] if attacked else None,
                    right=i in partners,
                )
                for i in found
            )

        if direction == "tr":
            asked = [picture(query, attacked=asks_attacked, title="The query is a picture")]
        else:
            source = self.data.texts[query]
            said = adversarial[query] if asks_attacked else source
            asked = [Item("The query", source), Item("Under attack", said, source=source)]
            if gallery_attacked and "image" in threat:
                asked.append(picture(int(own[0]), attacked=True, title="One of its pictures"))
        return Example(
            tuple(asked),
            {
                "Found without attack": answers(before, attacked=False),
                "Found under attack": answers(after, attacked=gallery_attacked),
            },
        )

    def save(self, folder: Path, part: Part | None, *, threat: ThreatModel) -> None:
        """Write the stored batches as an adversarial set; before the attack: see that the folder can be written."""
        if part is None:
            check_savable(threat)
            check_target(folder)
            return
        save_found(
            folder,
            part.store,
            self.batches,
            model=self.model,
            pairs=self.data,
            threat=threat,
            settings=part.settings,
        )
