"""`evaluate`: retrieval clean and under attack, in batches that resume where they stopped."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.attacks.base import Attack, frozen
from crossguard.attacks.gallery import GalleryAttack, SetName
from crossguard.data import OneToManyPairs, PairBatch
from crossguard.evaluate.asked import own_threat, parts_of, resolve_attack
from crossguard.evaluate.batches import linked_groups, load_pixels, pair_batch
from crossguard.evaluate.examples import TOP, Example, Examples, choose_queries
from crossguard.evaluate.features import attacked_texts, check_model, clean_side, encode_images, on_device
from crossguard.evaluate.fingerprint import digest
from crossguard.evaluate.gallery_attack import attack_gallery, set_stores
from crossguard.evaluate.kept import check_kept
from crossguard.evaluate.ranking import ByDirection, CosineRanking, Matching, MatchRanking, Ranking, Side
from crossguard.evaluate.result import RetrievalResult
from crossguard.evaluate.retrieval import DIRECTIONS, Direction
from crossguard.evaluate.retrieval_job import Job, Shared
from crossguard.evaluate.retrieval_rows import Edits, finished_result, keep_rows, query_rows, summarised
from crossguard.evaluate.sanity import FEWEST, warn_of_few_words, warn_of_ignored, warn_of_masking
from crossguard.evaluate.saving import save_found
from crossguard.evaluate.store import AdversarialStore, StoredBatch, open_store, stored_pixels
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
        WrongKind: the model lacks members of the protocol.
        ValueError: no pairs, missing image files, an attack without a threat or the reverse, a threat with a
            modality the attack cannot use, a run begun with other settings, a `save_to` that holds something or for
            budgets that a set cannot keep, or `rerank` with a model that cannot match.
    """
    found = resolve_attack(attack, attack_options)
    folder = None if save_to is None else Path(save_to)
    given = own_threat(found) if threat is None else threat
    job = Job(model, pairs, found, given, seed, batch_size, label, run, progress, examples, folder, rerank)
    job.check()
    with on_device(check_model(model), device) as where, frozen(model):
        return _measure(job, where, Shared())


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
        WrongKind: the model lacks members of the protocol.
        ValueError: as `evaluate`.
    """
    found = resolve_attack(attack, attack_options)
    jobs = {}
    for name, part in (parts_of(threat) or {"": threat}).items():
        folder = None if save_to is None else Path(save_to) / name
        jobs[name] = Job(model, pairs, found, part, seed, batch_size, label, run, progress, examples, folder, rerank)
    for job in jobs.values():
        job.check()
    with on_device(check_model(model), device) as where, frozen(model):
        shared = Shared()
        return {name: _measure(job, where, shared) for name, job in jobs.items()}


def _measure(job: Job, device: torch.device, shared: Shared) -> RetrievalResult:
    attack = job.attack
    settings = job.settings(shared)
    check_kept(job.run, kind="retrieval", name=job.section, section=job.section, settings=settings)
    with open_store(job.run, job.name, job.part, settings=settings) as store:
        groups = shared.get("groups", lambda: linked_groups(job.pairs, batch_size=job.batch_size))
        finished = finished_result(job, settings)
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
            rows = query_rows(job, settings, before.ranks, None, Edits.none(job.pairs))
            kept = keep_rows(job, rows)
            return summarised(job, RetrievalResult(kept, settings, warnings=_warnings(job, clean, groups, shared)))
        sets = _attack_all(job, attack, store, groups, clean, device)
        _save_found(job, store, groups, settings)
        target = job.threat.target if job.threat is not None else "both"

        def ranked(name: SetName, directions: Sequence[Direction] = DIRECTIONS) -> Ranking:
            attacked = sets[name][0]
            queries = clean if target == "gallery" else attacked
            gallery = clean if target == "query" else attacked
            part = job.part if name == "shared" else f"{job.part}-{name}"
            return _ranking(job, part, queries, gallery, links, device, settings, directions=directions)

        shared_set = ranked("shared")
        own = ByDirection({name: ranked(name, (name,)) for name in DIRECTIONS}) if len(sets) > 1 else shared_set
        asked = Edits.none(job.pairs)
        if target != "gallery":  # images as they ask for texts, texts as they ask for images
            by_direction = [sets.get(name, sets["shared"])[1] for name in DIRECTIONS]
            asked = Edits(by_direction[1].texts, by_direction[1].words, by_direction[0].linf)
        rows = query_rows(job, settings, before.ranks, own.ranks, asked, shared_set.ranks)
        shown = _examples(job, store, groups, before, shared_set, sets["shared"][1])
        warnings = _warnings(job, clean, groups, shared)
        return summarised(job, RetrievalResult(keep_rows(job, rows), settings, shown, warnings))


def _ranking(
    job: Job,
    part: str,
    queries: Side,
    gallery: Side,
    links: Int64[torch.Tensor, "links 2"],
    device: torch.device,
    settings: Mapping[str, Any],
    *,
    directions: Sequence[Direction] = DIRECTIONS,
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
    return MatchRanking(queries, gallery, links, matching, title=f"Match {job.name} ({part})", directions=directions)


def _attack_all(
    job: Job, attack: Attack, store: AdversarialStore, groups: Sequence[np.ndarray], clean: Side, device: torch.device
) -> dict[SetName, tuple[Side, Edits]]:
    """Attack every batch that is not stored yet, and embed what came out: one set, or one for each direction beside."""
    assert job.threat is not None
    title = f"Attack {job.name} with {attack.name} ({job.part})"
    if isinstance(attack, GalleryAttack):
        attack_gallery(job, attack, attack.budgets(job.threat), store, groups, clean, title=title)
        stores = set_stores(store)
        return {name: _as_attacked(job, kept, groups, clean, device) for name, kept in stores.items()}
    with job.progress.task(title, total=len(job.pairs.images)) as task:
        for number, image_ids in enumerate(groups):
            if not store.holds(number, image_ids):
                batch = pair_batch(job.model, job.pairs, image_ids)
                found = attack(job.model, batch.to(device), threat=job.threat, seed=job.seed)
                store.write(number, StoredBatch.from_attack(batch, found))
            task.advance(len(image_ids))
    return {"shared": _as_attacked(job, store, groups, clean, device)}


def _as_attacked(
    job: Job, store: AdversarialStore, groups: Sequence[np.ndarray], clean: Side, device: torch.device
) -> tuple[Side, Edits]:
    """Embed a stored set; what is unchanged keeps its embedding."""
    images = clean.images.clone()
    texts = list(job.pairs.texts)
    words = np.zeros(len(texts), np.int64)
    linf = np.zeros(len(job.pairs.images), np.float32)
    for number in range(len(groups)):
        stored = store.expect(number)
        moved = torch.from_numpy(stored.linf > 0)
        if moved.any():
            images[torch.from_numpy(stored.image_ids)[moved].to(device)] = encode_images(
                job.model, stored.pixels[moved], batch_size=job.batch_size, device=device
            )
        for index, text in zip(stored.text_ids, stored.texts, strict=True):
            texts[index] = text
        words[stored.text_ids] = stored.words
        linf[stored.image_ids] = stored.linf
    embedded = attacked_texts(job.model, clean.texts, job.pairs.texts, texts, batch_size=4 * job.batch_size)
    side = Side(images, embedded, stored_pixels(store, groups), tuple(texts))
    return side, Edits(tuple(texts), words, linf)


def _warnings(job: Job, clean: Side, groups: Sequence[np.ndarray], shared: Shared) -> tuple[str, ...]:
    found: list[str] = shared.get("ignored", lambda: warn_of_ignored(clean.images, clean.texts))
    if job.attack is None:
        return tuple(found)
    few: PairBatch = shared.get("few", lambda: pair_batch(job.model, job.pairs, groups[0][:FEWEST]))
    for modality in ("image", "text"):
        if modality in (job.threat or ()):
            masking = partial(warn_of_masking, job.model, few.to(clean.images.device), modalities=(modality,))
            found = found + shared.get(f"masked {modality}", masking)
    words = job.threat.get("text") if job.threat is not None else None
    if words is not None and getattr(words, "kinds", None) != ("deletion",):
        few_words = partial(warn_of_few_words, job.attack, job.pairs.texts, job.model)
        found = found + shared.get("words", few_words)
    return tuple(found)


def _save_found(job: Job, store: AdversarialStore, groups: Sequence[np.ndarray], settings: Mapping[str, Any]) -> None:
    if job.save_to is not None and job.threat is not None:
        save_found(job.save_to, store, groups, model=job.model, pairs=job.pairs, threat=job.threat, settings=settings)


def _examples(
    job: Job,
    store: AdversarialStore,
    groups: Sequence[np.ndarray],
    before: Ranking,
    after: Ranking,
    edits: Edits,
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
