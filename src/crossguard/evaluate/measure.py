"""`evaluate`: retrieval clean and under attack, in batches that resume where they stopped."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from crossguard import __version__
from crossguard.attacks.base import Attack, frozen
from crossguard.attacks.saved import Saved
from crossguard.data import OneToManyPairs, PairBatch
from crossguard.evaluate.asked import check_budgets, own_threat, part_name, parts_of, resolve_attack
from crossguard.evaluate.batches import linked_groups, load_pixels, pair_batch
from crossguard.evaluate.examples import TOP, Example, Examples, choose_queries
from crossguard.evaluate.features import attacked_texts, check_model, clean_side, encode_images, on_device
from crossguard.evaluate.fingerprint import describe, digest, pairs_fingerprint, weights_fingerprint
from crossguard.evaluate.ranking import CosineRanking, Matching, MatchRanking, Ranking, Side, candidates_of
from crossguard.evaluate.result import RetrievalResult
from crossguard.evaluate.retrieval import DIRECTIONS, Direction
from crossguard.evaluate.sanity import FEWEST, warn_of_ignored, warn_of_masking
from crossguard.evaluate.saving import check_target, save_found
from crossguard.evaluate.store import AdversarialStore, StoredBatch, stored_pixels
from crossguard.models import VisionLanguageModel
from crossguard.progress import Reporter, Silent
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel

_SILENT = Silent()


def evaluate(
    model: VisionLanguageModel,
    pairs: OneToManyPairs,
    *,
    attack: Attack | str | None = None,
    threat: ThreatModel | None = None,
    seed: int = 0,
    batch_size: int = 64,
    label: str | None = None,
    run: RunFolder | None = None,
    progress: Reporter = _SILENT,
    device: torch.device | str | None = None,
    attack_options: Mapping[str, Any] | None = None,
    examples: int = 4,
    save_to: Path | str | None = None,
    rerank: int | None = None,
) -> RetrievalResult:
    """Measure text and image retrieval, clean and under an attack.

    Every image is attacked together with all of its texts, and every text once, under all of its images (see
    `linked_groups`). The finished pictures, rounded to 8 bits, and texts are what is judged. Whom the attack changes
    is `threat.target`: "both" asks adversarial queries of an adversarial gallery, "query" adversarial queries of the
    clean gallery, "gallery" clean queries of an adversarial gallery.

    With a `run`, each attacked batch is kept at once; calling again with the same arguments takes the evaluation up
    where it stopped, and returns a finished one from its rows without computing anything again.

    Args:
        model: the victim; its mode, weights and device are afterwards what they were.
        pairs: the data; the gallery is all of it.
        attack: a name of the table, an attack, or None to measure clean only.
        threat: what the attack may do; only modalities that it can use.
        seed: seed of the attack, the same for every batch.
        batch_size: images per batch. Attacks may look at a whole batch, so it belongs to the settings.
        label: name of this measurement in tables and in the run; default: the model's name.
        run: where rows, adversarial samples and summary go.
        progress: where progress is shown.
        device: where to compute; None: where the model is.
        attack_options: options of an attack given by name.
        examples: how many queries per direction are kept as examples.
        save_to: a new folder for the adversarial pictures and texts, which the attack "saved" takes to other models.
        rerank: how many of each query's best by cosine a fusion model re-ranks by match; 0 ranks by cosine alone;
            None: 128 for fusion models (papers take 256 for COCO), 0 for others.

    Returns:
        Clean and robust recalls, attack success, intervals and rows.

    Raises:
        TypeError: the model lacks members of the protocol.
        ValueError: no pairs, missing image files, an attack without a threat or the reverse, a threat with a
            modality the attack cannot use, a run begun with other settings, a `save_to` that holds something, or
            `rerank` with a model that cannot match.
    """
    found = resolve_attack(attack, attack_options)
    folder = None if save_to is None else Path(save_to)
    given = own_threat(found) if threat is None else threat
    job = _Job(model, pairs, found, given, seed, batch_size, label, run, progress, examples, folder, rerank)
    job.check()
    with on_device(check_model(model), device) as where, frozen(model):
        return _measure(job, where, _Shared())


def evaluate_modalities(
    model: VisionLanguageModel,
    pairs: OneToManyPairs,
    *,
    attack: Attack | str,
    threat: ThreatModel,
    seed: int = 0,
    batch_size: int = 64,
    label: str | None = None,
    run: RunFolder | None = None,
    progress: Reporter = _SILENT,
    device: torch.device | str | None = None,
    attack_options: Mapping[str, Any] | None = None,
    examples: int = 4,
    save_to: Path | str | None = None,
    rerank: int | None = None,
) -> dict[str, RetrievalResult]:
    """Measure retrieval under an attack on each modality alone and on all of them together.

    The clean embeddings are computed once. Arguments are those of `evaluate`; each part has a folder in `save_to`.

    Returns:
        By modality ("image", "text") and, if the threat has several, "joint": the result under that part of the
        threat. The clean figures are the same in all of them.

    Raises:
        TypeError: the model lacks members of the protocol.
        ValueError: as `evaluate`.
    """
    found = resolve_attack(attack, attack_options)
    jobs = {}
    for name, part in (parts_of(threat) or {"": threat}).items():
        folder = None if save_to is None else Path(save_to) / name
        jobs[name] = _Job(model, pairs, found, part, seed, batch_size, label, run, progress, examples, folder, rerank)
    for job in jobs.values():
        job.check()
    with on_device(check_model(model), device) as where, frozen(model):
        shared = _Shared()
        return {name: _measure(job, where, shared) for name, job in jobs.items()}


@dataclass(frozen=True)
class _Job:
    model: VisionLanguageModel
    pairs: OneToManyPairs
    attack: Attack | None
    threat: ThreatModel | None
    seed: int
    batch_size: int
    label: str | None
    run: RunFolder | None
    progress: Reporter
    examples: int
    save_to: Path | None
    rerank: int | None

    @property
    def candidates(self) -> int:
        """How many items per query are re-ranked by match; 0: none."""
        return candidates_of(self.model, self.rerank)

    @property
    def name(self) -> str:
        return self.model.name if self.label is None else self.label

    @property
    def part(self) -> str:
        return part_name(self.threat)

    @property
    def section(self) -> str:
        return f"{self.name}/{self.part}"

    def check(self) -> None:
        check_model(self.model)
        if not self.pairs.images or not self.pairs.texts:
            raise ValueError(
                f"Expected pairs to evaluate, but {self.pairs.name} ({self.pairs.split}) has "
                f"{len(self.pairs.images)} images and {len(self.pairs.texts)} texts."
            )
        if self.batch_size < 1 or self.examples < 0:
            raise ValueError(
                f"Expected `batch_size` >= 1 and `examples` >= 0, but got {self.batch_size} and {self.examples}."
            )
        candidates_of(self.model, self.rerank)
        check_budgets(self.attack, self.threat)
        if isinstance(self.attack, Saved) and self.threat is not None:
            self.attack.check(self.model, self.pairs, self.threat)
        if self.save_to is not None:
            if self.attack is None:
                raise ValueError("Expected an attack whose findings go to `save_to`, but `attack` is None.")
            check_target(self.save_to)


class _Shared:
    """What several evaluations of one model on one data set have in common, computed at most once."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, name: str, make: Any) -> Any:
        if name not in self._values:
            self._values[name] = make()
        return self._values[name]


def _measure(job: _Job, device: torch.device, shared: _Shared) -> RetrievalResult:
    attack = job.attack
    settings = _settings(job, attack, shared)
    with _store(job, settings) as store:
        groups = shared.get("groups", lambda: linked_groups(job.pairs, batch_size=job.batch_size))
        finished = _finished(job, settings)
        if finished is not None:
            _save_found(job, store, groups, settings)
            return finished
        clean: Side = shared.get(
            "clean",
            lambda: clean_side(
                job.model, job.pairs, groups, batch_size=job.batch_size, device=device, progress=job.progress
            ),
        )
        links = torch.tensor(job.pairs.links, device=device)
        before: Ranking = shared.get(
            "clean ranking", lambda: _ranking(job, "clean", clean, clean, links, device, settings)
        )
        if attack is None:
            rows = _rows(job, settings, before.ranks, None, _Edits.none(job.pairs))
            kept = _keep_rows(job, rows)
            return _summarised(job, RetrievalResult(kept, settings, warnings=_warnings(job, clean, groups, shared)))
        attacked, edits = _attack_all(job, attack, store, groups, clean, device)
        _save_found(job, store, groups, settings)
        target = job.threat.target if job.threat is not None else "both"
        queries = clean if target == "gallery" else attacked
        gallery = clean if target == "query" else attacked
        after = _ranking(job, job.part, queries, gallery, links, device, settings)
        asked = edits if target != "gallery" else _Edits.none(job.pairs)
        kept = _keep_rows(job, _rows(job, settings, before.ranks, after.ranks, asked))
        shown = _examples(job, store, groups, before, after, edits)
        warnings = _warnings(job, clean, groups, shared)
        return _summarised(job, RetrievalResult(kept, settings, shown, warnings))


def _ranking(
    job: _Job,
    part: str,
    queries: Side,
    gallery: Side,
    links: Int64[torch.Tensor, "links 2"],
    device: torch.device,
    settings: Mapping[str, Any],
) -> Ranking:
    """Rank by cosine, or by match where the job re-ranks; a run keeps match scores as soon as they are there."""
    if not job.candidates:
        return CosineRanking(queries, gallery, links)
    folder = None
    if job.run is not None:
        decides = {key: settings[key] for key in ("weights", "content")} if part == "clean" else settings
        folder = job.run.file("scores", job.name, f"{part}-{digest(decides)[:12]}")
    model: Any = job.model
    matching = Matching(model, job.candidates, job.batch_size, device, job.progress, folder)
    return MatchRanking(queries, gallery, links, matching, title=f"Match {job.name} ({part})")


@dataclass(frozen=True)
class _Edits:
    """What was changed, by index in the data set."""

    texts: tuple[str, ...]
    words: Int64[np.ndarray, " texts"]
    linf: np.ndarray

    @classmethod
    def none(cls, pairs: OneToManyPairs) -> "_Edits":
        return cls(tuple(pairs.texts), np.zeros(len(pairs.texts), np.int64), np.zeros(len(pairs.images), np.float32))


def _attack_all(
    job: _Job, attack: Attack, store: AdversarialStore, groups: Sequence[np.ndarray], clean: Side, device: torch.device
) -> tuple[Side, _Edits]:
    """Attack every batch that is not stored yet, and embed what came out; what is unchanged keeps its embedding."""
    assert job.threat is not None
    images = clean.images.clone()
    texts = list(job.pairs.texts)
    words = np.zeros(len(texts), np.int64)
    linf = np.zeros(len(job.pairs.images), np.float32)
    title = f"Attack {job.name} with {attack.name} ({job.part})"
    with job.progress.task(title, total=len(job.pairs.images)) as task:
        for number, image_ids in enumerate(groups):
            stored = store.read(number)
            if stored is None:
                batch = pair_batch(job.model, job.pairs, image_ids)
                found = attack(job.model, batch.to(device), threat=job.threat, seed=job.seed)
                stored = StoredBatch.from_attack(batch, found)
                store.write(number, stored)
            moved = torch.from_numpy(stored.linf > 0)
            if moved.any():
                images[torch.from_numpy(stored.image_ids)[moved].to(device)] = encode_images(
                    job.model, stored.pixels[moved], batch_size=job.batch_size, device=device
                )
            for index, text in zip(stored.text_ids, stored.texts, strict=True):
                texts[index] = text
            words[stored.text_ids] = stored.words
            linf[stored.image_ids] = stored.linf
            task.advance(len(image_ids))
    embedded = attacked_texts(job.model, clean.texts, job.pairs.texts, texts, batch_size=4 * job.batch_size)
    side = Side(images, embedded, stored_pixels(store, groups), tuple(texts))
    return side, _Edits(tuple(texts), words, linf)


def _warnings(job: _Job, clean: Side, groups: Sequence[np.ndarray], shared: _Shared) -> tuple[str, ...]:
    found: list[str] = shared.get("ignored", lambda: warn_of_ignored(clean.images, clean.texts))
    if job.attack is None:
        return tuple(found)
    few: PairBatch = shared.get("few", lambda: pair_batch(job.model, job.pairs, groups[0][:FEWEST]))
    for modality in ("image", "text"):
        if modality in (job.threat or ()):
            found = found + shared.get(
                f"masked {modality}",
                lambda modality=modality: warn_of_masking(
                    job.model, few.to(clean.images.device), modalities=(modality,)
                ),
            )
    return tuple(found)


def _save_found(job: _Job, store: AdversarialStore, groups: Sequence[np.ndarray], settings: Mapping[str, Any]) -> None:
    if job.save_to is not None and job.threat is not None:
        save_found(job.save_to, store, groups, model=job.model, pairs=job.pairs, threat=job.threat, settings=settings)


def _settings(job: _Job, attack: Attack | None, shared: _Shared) -> dict[str, Any]:
    return {
        "label": job.name,
        "part": job.part,
        "model": job.model.name,
        "weights": shared.get("weights", lambda: weights_fingerprint(check_model(job.model))),
        "data": job.pairs.name,
        "split": job.pairs.split,
        "content": shared.get("content", lambda: pairs_fingerprint(job.pairs, progress=job.progress)),
        "data_notes": list(job.pairs.notes),
        "attack": None if attack is None else attack.name,
        "attack_options": {} if attack is None else describe(vars(attack)),
        "threat": None if job.threat is None else job.threat.to_dict(),
        "seed": job.seed,
        "batch_size": job.batch_size,
        "rerank": job.candidates,
        "crossguard": __version__,
    }


@contextmanager
def _store(job: _Job, settings: Mapping[str, Any]) -> Iterator[AdversarialStore]:
    if job.run is not None:
        yield AdversarialStore(job.run.file("adversarial", job.name, job.part), settings)
    else:
        with tempfile.TemporaryDirectory(prefix="crossguard-") as folder:
            yield AdversarialStore(Path(folder), settings)


def _finished(job: _Job, settings: Mapping[str, Any]) -> RetrievalResult | None:
    """Return an evaluation that the run already holds, or None."""
    if job.run is None:
        return None
    summary = job.run.summary.get("retrieval", {}).get(job.section)
    rows = _known_rows(job)
    if summary is None or len(rows) != len(job.pairs.images) + len(job.pairs.texts):
        return None
    shown = None
    if summary["examples"] is not None:
        try:
            shown = Examples.load(summary["examples"], _pictures_file(job.run, job.name, job.part))
        except ValueError:
            return None
    return RetrievalResult(_ordered(rows), settings, shown, tuple(summary["warnings"]))


def _known_rows(job: _Job) -> dict[tuple[str, int], Mapping[str, Any]]:
    if job.run is None:
        return {}
    return {(row["direction"], row["index"]): row for row in job.run.rows if row.get("section") == job.section}


def _keep_rows(job: _Job, rows: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Append the rows that the run does not hold yet; rows that it holds stay as they are."""
    if job.run is None:
        return tuple(rows)
    known = _known_rows(job)
    new = [row for row in rows if (row["direction"], row["index"]) not in known]
    if new:
        job.run.rows.append(*new)
    return _ordered({**known, **{(row["direction"], row["index"]): row for row in new}})


def _ordered(rows: Mapping[tuple[str, int], Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return tuple(rows[key] for direction in DIRECTIONS for key in sorted(k for k in rows if k[0] == direction))


def _rows(
    job: _Job,
    settings: Mapping[str, Any],
    clean: Mapping[Direction, torch.Tensor],
    robust: Mapping[Direction, torch.Tensor] | None,
    edits: _Edits,
) -> list[dict[str, Any]]:
    common = {key: settings[key] for key in ("model", "data", "split", "attack", "threat", "seed")}
    attacked = robust is not None
    rows = []
    for direction in DIRECTIONS:
        before = clean[direction].tolist()
        after = robust[direction].tolist() if robust is not None else [None] * len(before)
        for index, (clean_rank, robust_rank) in enumerate(zip(before, after, strict=True)):
            asks_image = direction == "tr"
            rows.append(
                {
                    "section": job.section,
                    "direction": direction,
                    "index": index,
                    "query": job.pairs.images[index].key if asks_image else job.pairs.texts[index],
                    "clean_rank": clean_rank,
                    "robust_rank": robust_rank,
                    **common,
                    "linf": float(edits.linf[index]) if asks_image and attacked else None,
                    "words": int(edits.words[index]) if not asks_image and attacked else None,
                    "adversarial_text": edits.texts[index] if not asks_image and attacked else None,
                }
            )
    return rows


def _examples(
    job: _Job,
    store: AdversarialStore,
    groups: Sequence[np.ndarray],
    before: Ranking,
    after: Ranking,
    edits: _Edits,
) -> Examples:
    chosen = []
    for direction, index in choose_queries(before.ranks, count=job.examples):
        partners = job.pairs.texts_of(index) if direction == "tr" else job.pairs.images_of(index)
        chosen.append(
            Example(
                direction=direction,
                query=index,
                right=tuple(int(i) for i in partners),
                before=before.top(direction, index, count=TOP),
                after=after.top(direction, index, count=TOP),
            )
        )
    wanted = sorted(set().union(*(example.images for example in chosen)))
    pictures = {}
    for number, image_ids in enumerate(groups):
        here = np.array([i for i in wanted if i in image_ids], dtype=np.int64)
        stored = store.read(number) if len(here) else None
        if stored is not None:
            sources = (load_pixels(job.model, job.pairs, here) * 255).round().to(torch.uint8)
            for row, index in enumerate(here):
                adversarial = stored.grey[np.searchsorted(stored.image_ids, index)]
                pictures[int(index)] = (
                    sources[row].permute(1, 2, 0).numpy().copy(),
                    adversarial.transpose(1, 2, 0).copy(),
                )
    texts = sorted(set().union(*(example.texts for example in chosen)))
    return Examples(tuple(chosen), {i: (job.pairs.texts[i], edits.texts[i]) for i in texts}, pictures)


def _summarised(job: _Job, result: RetrievalResult) -> RetrievalResult:
    if job.run is not None:
        if result.examples is not None:
            result.examples.save_pictures(_pictures_file(job.run, job.name, job.part))
        job.run.summarise("retrieval", job.section, result.summary())
    return result


def _pictures_file(run: RunFolder, name: str, part: str) -> Path:
    return run.file("examples", name, f"{part}.npz")
