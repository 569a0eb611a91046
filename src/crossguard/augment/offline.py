"""`augment`: make samples once, offline, into a folder; look at them; put them beside the originals."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from crossguard.augment.base import Request, Source
from crossguard.augment.features import model_fingerprint, module_of, pairs_fingerprint
from crossguard.augment.links import place
from crossguard.augment.look import Look, look
from crossguard.augment.manifest import manifest_rows, source_measures
from crossguard.augment.measures import Measures
from crossguard.augment.samples import Blocks, Sample, check_parents
from crossguard.augment.table import make_augmentation
from crossguard.checks import check_whole, expanded
from crossguard.data import OneToManyPairs, as_pairs
from crossguard.data.augmented import AugmentedPairs, load_augmented, save_augmented
from crossguard.data.cache import place_in_cache
from crossguard.memory import told_of_memory
from crossguard.models import VisionLanguageModel
from crossguard.models.plain_torch import plain_torch
from crossguard.models.unseen import report_cut_texts
from crossguard.progress import Reporter, Silent, shown
from crossguard.runs import RunFolder, read_rows, safe_name, tidy, write_atomically
from crossguard.world import World, join

VERSION = 2
"""Raised whenever the same settings come to give other samples or links, so that old caches are not taken."""


@plain_torch()
def augment(
    pairs: OneToManyPairs | Any,
    *,
    sources: Sequence[str | Mapping[str, Any] | Source],
    per_sample: int = 4,
    seed: int = 0,
    folder: Path | str | None = None,
    model: VisionLanguageModel | None = None,
    min_alignment: float | None = None,
    pool: OneToManyPairs | Any | None = None,
    batch_size: int = 64,
    progress: Reporter | None = None,
    device: torch.device | str | None = None,
    command: Sequence[str] | None = None,
) -> AugmentedPairs:
    """Make one-to-many pairs: the originals first, then augmented texts and pictures with every true link.

    Samples are made block by block into `folder`; an interrupted call takes up where it stopped, and a finished one
    is loaded. Where several processes were launched, call it in each of them: they share the blocks, and must see the
    same disk. The same seed gives the same samples, whatever the batch size and whatever the other sources; the first
    samples of an item are the same for every `per_sample`. `folder` then holds:

    ====================  ==============================================================================
    `run.json`            settings, seed, versions, times
    `blocks/SOURCE/`      the samples, in blocks that are whole or not there
    `manifest.jsonl`      per sample: source, parents, alignment, whether it was kept and why not
    `summary.json`        per source: made, repeats, filtered, alignment, diversity, gap
    `pairs/`              what `crossguard.data.augmented.load_augmented(folder)` reads
    ====================  ==============================================================================

    Args:
        pairs: the originals, or what `crossguard.as_pairs` takes (the split "train" of what tells splits); their
            indices and the links among them stay as they are.
        sources: names of the table, {"name", "options"} or built sources; each name once.
        per_sample: the most samples of each source per item (per text or per image, as the source says).
        seed: the only randomness.
        folder: where everything goes; default: a folder of the cache that belongs to these settings alone.
        model: reference for the measures, used where it is; without it they are not taken.
        min_alignment: leave out samples whose mean cosine with their originals is lower, in [-1, 1].
        pool: the whole data set, of which `pairs` are a part (see `thin`), for sources that take from the data.
        batch_size: samples per forward.
        progress: where it is shown; default: bars where a person is there to see them.
        device: where sources compute; default: where `model` is, without one the CPU.
        command: what was typed, for `run.json`.

    Raises:
        ValueError: wrong settings, missing images, a folder with other settings, a source that gives blank texts.
        ImportError: a source needs a package that is missing.
        RunBusy: another process is writing the folder.
        OSError: the folder cannot be written; everything made before is still there.
    """
    pairs = as_pairs(pairs, split="train")
    per_sample, batch_size = (
        check_whole(per_sample, "per_sample", least=1),
        check_whole(batch_size, "batch_size", least=1),
    )
    seed = check_whole(seed, "seed", least=0)
    built = [make_augmentation(source) for source in sources]
    _check(pairs, built, min_alignment=min_alignment, model=model)
    pool = pairs if pool is None else as_pairs(pool, split="train")
    _check_pool(pairs, pool)
    settings = _settings(pairs, built, pool, per_sample)
    home = expanded(folder) if folder is not None else _own_folder(pairs, settings, seed)
    world = join(_device(device, model))
    request = Request(per_sample, seed, batch_size, world.place(_device(device, model)), pool)
    progress = shown(progress) if world.main else Silent()
    with world.together(), ExitStack() as stack:
        world.same("augmentation", {**settings, "seed": seed, "folder": str(home)})
        run = None
        if world.main:
            opening = RunFolder.open(home, settings=settings, seed=seed, device=str(request.device), command=command)
            run = stack.enter_context(opening)
        home = world.agree(home if run is None else run.path)
        all_blocks = [Blocks(home / "blocks" / source.name, source, pairs) for source in built]
        fresh = sum([_make(blocks, request, progress, world) for blocks in all_blocks])
        seen_by = {
            "model": None if model is None else model.name,
            "weights": None if model is None else model_fingerprint(model),
            "min_alignment": min_alignment,
        }
        known = run is not None and run.summary.get("measured", {}).get("by") == seen_by and (home / "pairs").is_dir()
        if fresh or not world.agree(known):
            if run is not None:
                run.summarise("measured", "by", {})  # until all files below are there
            samples = [sample for blocks in all_blocks for sample in blocks.read()]
            for sample in samples:
                check_parents(sample, pairs)
            seen = None
            if model is not None:
                if world.main:
                    report_cut_texts(model, pairs.texts)
                seen = look(pairs, samples, model, seed=seed, batch_size=batch_size, progress=progress, world=world)
            if run is not None:
                _finish(run, pairs, built, samples, pool, seen, min_alignment)
                run.summarise("measured", "by", seen_by)
        if run is not None:
            run.finish()
        world.wait()
    return load_augmented(home)


def _device(given: torch.device | str | None, model: VisionLanguageModel | None) -> torch.device:
    if given is not None:
        return torch.device(given)
    first = None if model is None else next(module_of(model).parameters(), None)
    return torch.device("cpu") if first is None else first.device


def read_measures(folder: Path | str) -> list[Measures]:
    """Return the measures of every source of a finished augmentation, the originals first.

    Raises:
        ValueError: no augmentation there.
    """
    found = RunFolder(folder).summary.get("augmentation")
    if found is None:
        raise ValueError(f"Expected a finished augmentation in {folder}, but it has no measures yet.")
    return [Measures.from_dict(row) for row in found["sources"]["rows"]]


def read_manifest(folder: Path | str) -> list[dict[str, Any]]:
    """Return the manifest of an augmentation: one row per sample."""
    return read_rows(expanded(folder) / "manifest.jsonl")


def _make(blocks: Blocks, request: Request, progress: Reporter, world: World) -> int:
    """Make the blocks that are not there; return how many."""
    if world.main and blocks.folder.is_dir():
        tidy(blocks.folder)
    missing = world.agree([n for n in blocks.numbers() if not blocks.is_whole(n)] if world.main else [])
    done = blocks.items - sum(len(blocks.items_of(number)) for number in missing)
    with progress.task(f"Augment: {blocks.source.name}", total=blocks.items, done=done) as task:
        for number in world.deal(missing, passed=lambda number: task.advance(len(blocks.items_of(number)))):
            with told_of_memory(None, batch_size=request.batch_size):
                blocks.make(number, request)
            task.advance(len(blocks.items_of(number)))
    return len(missing)


def _finish(
    run: RunFolder,
    pairs: OneToManyPairs,
    sources: Sequence[Source],
    samples: Sequence[Sample],
    pool: OneToManyPairs,
    seen: Look | None,
    min_alignment: float | None,
) -> None:
    """Filter, place, and write manifest, measures and pairs."""
    aligned = None if seen is None else seen.alignment.tolist()
    kept = list(range(len(samples)))
    if aligned is not None and min_alignment is not None:
        kept = [n for n in kept if aligned[n] >= min_alignment]
    name = "+".join([pairs.name, *(source.name for source in sources)])
    placed = place(pairs, [samples[n] for n in kept], name=name, pool=pool, folder=run.path)
    rows = manifest_rows(pairs, samples, dict(zip(kept, placed.index.tolist(), strict=True)), aligned)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(run.path / "manifest.jsonl", "".join(lines))
    save_augmented(run.path, placed.pairs)
    measures = source_measures(sources, rows, seen)
    run.summarise("augmentation", "sources", {"rows": [measure.to_dict() for measure in measures]})


def _settings(
    pairs: OneToManyPairs, sources: Sequence[Source], pool: OneToManyPairs, per_sample: int
) -> dict[str, Any]:
    return {
        "augmentation": VERSION,
        "pairs": {"name": pairs.name, "split": pairs.split, "fingerprint": pairs_fingerprint(pairs)},
        "pool": None if pool is pairs else pairs_fingerprint(pool),
        "per_sample": per_sample,
        "sources": {source.name: dict(source.options) for source in sources},
    }


def _own_folder(pairs: OneToManyPairs, settings: Mapping[str, Any], seed: int) -> Path:
    digest = blake2b(json.dumps([settings, seed], sort_keys=True).encode(), digest_size=8).hexdigest()
    return place_in_cache(f"augmented-v{VERSION}", f"{safe_name(f'{pairs.name}-{pairs.split}')}-{digest}")


def _check(
    pairs: OneToManyPairs,
    sources: Sequence[Source],
    *,
    min_alignment: float | None,
    model: VisionLanguageModel | None,
) -> None:
    if not pairs.images:
        raise ValueError("Expected pairs to augment, but got none.")
    if not sources:
        raise ValueError("Expected at least one of `sources`, but got none.")
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise ValueError(f"Expected every source once, but got {names}.")
    keys = {picture.key for picture in pairs.images}
    if len(keys) != len(pairs.images):
        raise ValueError(
            f"Expected pictures with different keys, but {len(pairs.images) - len(keys)} of {len(pairs.images)} repeat."
        )
    if model is not None:
        module_of(model)
    if min_alignment is not None:
        if not -1 <= min_alignment <= 1:
            raise ValueError(f"Expected `min_alignment` in [-1, 1] (a cosine), but got {min_alignment}.")
        if model is None:
            raise ValueError("Expected a `model` to measure alignment with `min_alignment`, but got none.")


def _check_pool(pairs: OneToManyPairs, pool: OneToManyPairs) -> None:
    if pool is pairs:
        return
    images = {picture.key for picture in pairs.images} - {picture.key for picture in pool.images}
    texts = set(pairs.texts) - set(pool.texts)
    if images or texts:
        raise ValueError(
            f"Expected `pool` to hold all of `pairs`, but {len(images)} pictures and {len(texts)} texts are not in it "
            f"(for example {next(iter(images or texts))!r})."
        )
