"""What a training will do, checked before any work: the trainer's options as one value."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from torch import nn

from crossguard.attacks.ascent import step_size
from crossguard.attacks.options import check_step_rule
from crossguard.attacks.sources import SourceLike, make_source
from crossguard.checks import check_choice, lookup
from crossguard.data import OneToManyPairs
from crossguard.models import Captioner, VisionLanguageModel
from crossguard.threat import LInf, ThreatModel, WordEdits
from crossguard.training.believed import Momentum, read_momentum
from crossguard.training.composition import Composition
from crossguard.training.defences import (
    DEFENCES,
    Contrast,
    DefenceRow,
    Term,
    Tower,
    attacked,
    scaled,
    terms_for,
)
from crossguard.training.inner import InnerAttack, Order
from crossguard.training.links import arrange
from crossguard.training.lora import Lora, read_lora
from crossguard.training.swaps import Swaps

Positives = Literal["summed", "drawn"]
InnerStart = Literal["uniform", "clean", "warm"]


@dataclass(frozen=True)
class Plan:
    """A training, all options resolved.

    Args:
        row: the defence.
        pairs: what is trained on.
        terms: its loss, with the clean share mixed in.
        composition: what a step is made of.
        inner: the inner attack.
        start: where images start; "warm" where the last visit left them.
        steps: optimiser steps.
        seed: of the whole training.
        learning_rate: the largest.
        weight_decay: of AdamW.
        warmup_steps: of the learning rate.
        clip_norm: largest gradient norm.
        draws_targets: whether one target per image and text is drawn, in place of all with equal shares.
        chunk_size: the most samples in one pass; None for all.
        momentum: options of a momentum copy with queues, or None.
        ema: decay of the average of weights; 0 for none.
        lora: adapters to train in place of the weights, or None.
        freeze: name patterns of parameters that are not trained.
        settings: all that decides the outcome, as JSON values.
    """

    row: DefenceRow
    pairs: OneToManyPairs
    terms: tuple[Term, ...]
    composition: Composition
    inner: InnerAttack
    start: InnerStart
    steps: int
    seed: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    clip_norm: float
    draws_targets: bool
    chunk_size: int | None
    momentum: Momentum | None
    ema: float
    lora: Lora | None
    freeze: tuple[str, ...]
    settings: Mapping[str, Any]


def make_plan(
    pairs: OneToManyPairs,
    *,
    model: nn.Module,
    defence: str,
    threat: ThreatModel | None,
    links: str | None,
    new_originals: OneToManyPairs | None,
    steps: int,
    seed: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    warmup: float,
    clip_norm: float,
    clean_weight: float,
    texts_per_image: int | None,
    images_per_text: int,
    positives: str,
    pgd_steps: int,
    pgd_step: str | float,
    start: str,
    order: str,
    text_tries: int,
    source: SourceLike | None,
    chunk_size: int | None,
    queue_size: int,
    momentum: float,
    soft_targets: float,
    ema: float,
    lora: Mapping[str, Any] | None,
    freeze: Sequence[str],
    processes: int,
) -> Plan:
    """Check the options of `train` and resolve them; their meaning is said there.

    Raises:
        ValueError: as `train`.
    """
    row = lookup(DEFENCES, defence, what="defence")
    _check_whole(1, steps=steps, pgd_steps=pgd_steps, text_tries=text_tries)
    _check_whole(0, seed=seed)
    _check_range(math.inf, learning_rate=learning_rate, clip_norm=clip_norm, zero=False)
    _check_range(math.inf, weight_decay=weight_decay)
    _check_range(1.0, warmup=warmup, clean_weight=clean_weight, ema=ema)
    if chunk_size is not None:
        _check_whole(1, chunk_size=chunk_size)
    believed = read_momentum(model, queue_size=queue_size, momentum=momentum, soft_targets=soft_targets)
    adapters = read_lora(lora)
    patterns = (freeze,) if isinstance(freeze, str) else tuple(freeze)
    starts: InnerStart = check_choice(start, get_args(InnerStart), "start")
    orders: Order = check_choice(order, get_args(Order), "order")
    kind: Positives = check_choice(positives, get_args(Positives), "positives")
    arranged = arrange(pairs, links, one_to_many=row.one_to_many, new_originals=new_originals)
    pairs = arranged.pairs
    if kind == "drawn" and not arranged.one_to_many:
        raise ValueError(
            f"Expected positives='summed' for {row.name!r}, which has one target per image: use a one-to-many defence."
        )
    if believed is not None and kind == "drawn":
        raise ValueError("Expected positives='summed' with `queue_size` > 0, whose targets are soft, but got 'drawn'.")
    size, together = len(pairs.images), batch_size * processes
    if size < together:
        several = f" in each of {processes} processes" if processes > 1 else ""
        raise ValueError(
            f"Expected at least {together} images (`batch_size`{several}) to train on, but {pairs.name!r} "
            f"({pairs.split}) has {size}."
        )
    composition = Composition(
        together,
        one_to_many=arranged.one_to_many,
        texts_per_image=(2 if arranged.one_to_many else 1) if texts_per_image is None else texts_per_image,
        images_per_text=images_per_text,
    )
    terms = terms_for(model, _mixed(row.terms, clean_weight), defence=defence)
    eps, words = _budgets(defence, attacked(terms), threat)
    candidates = make_source(row.source if source is None else source)
    step = step_size(check_step_rule(pgd_step), eps=eps, steps=pgd_steps)
    settings = {
        "model": model.name,
        "pairs": f"{pairs.name} {pairs.split} {_fingerprint(pairs)}",
        "defence": defence,
        "eps": eps,
        "words": words,
        "steps": steps,
        "seed": seed,
        "composition": asdict(composition),
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "warmup": warmup,
        "clip_norm": clip_norm,
        "clean_weight": clean_weight,
        "positives": kind,
        "pgd": {"steps": pgd_steps, "step": step, "start": start},
        "order": order,
        "text_tries": text_tries,
        "source": candidates.name,
    }
    # What is at its default is not named, so that a training begun before an option was there goes on.
    named: dict[str, tuple[Any, Any]] = {
        "links": (links, None),
        "momentum": (None if believed is None else asdict(believed), None),
        "ema": (ema, 0.0),
        "source_options": (_source_options(source), {}),
        "lora": (None if adapters is None else asdict(adapters), None),
        "freeze": (list(patterns), []),
    }
    settings |= {name: value for name, (value, default) in named.items() if value != default}
    return Plan(
        row=row,
        pairs=pairs,
        terms=terms,
        composition=composition,
        inner=InnerAttack(
            eps=eps,
            words=words,
            swaps=Swaps(candidates, cast(VisionLanguageModel | Captioner, model)),
            text_tries=text_tries,
            pgd_steps=pgd_steps,
            pgd_step=step,
            start="clean" if starts == "clean" else "uniform",
            order=orders,
        ),
        start=starts,
        steps=steps,
        seed=seed,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_steps=round(warmup * steps),
        clip_norm=clip_norm,
        draws_targets=kind == "drawn",
        chunk_size=chunk_size,
        momentum=believed,
        ema=ema,
        lora=adapters,
        freeze=patterns,
        settings=settings,
    )


def _mixed(terms: tuple[Term, ...], clean_weight: float) -> tuple[Term, ...]:
    if clean_weight == 0:
        return terms
    return (*scaled(terms, 1 - clean_weight), Contrast("clean", "clean", clean_weight))


def _budgets(defence: str, modalities: frozenset[Tower], threat: ThreatModel | None) -> tuple[float, int]:
    """Return what the inner attack may change: the threat's budgets of the modalities that the defence attacks."""
    threat = threat or ThreatModel()
    for modality in threat:
        if modality not in ("image", "text"):
            raise ValueError(f"Expected budgets for 'image' and 'text', but got one for {modality!r}.")
    image, text = threat.get("image"), threat.get("text")
    if not isinstance(image, LInf | None):
        raise ValueError(f"Expected an LInf budget for 'image', but got {image!r}.")
    if not isinstance(text, WordEdits | None):
        raise ValueError(f"Expected a WordEdits budget for 'text', but got {text!r}.")
    if text is not None and "text" in modalities and "substitution" not in text.kinds:
        raise ValueError(
            f"Expected 'substitution' among the kinds of the text budget, which is how training attacks texts, but got "
            f"{', '.join(text.kinds)}."
        )
    eps = image.eps if image is not None and "image" in modalities else 0.0
    words = text.words if text is not None and "text" in modalities else 0
    if modalities and not eps and not words:
        needed = " or ".join(
            {"image": "an image budget eps > 0", "text": "a text budget words > 0"}[m] for m in sorted(modalities)
        )
        raise ValueError(
            f"Expected {needed} for the defence {defence!r}, but the threat is '{threat}': nothing would be attacked. "
            "Use the defence 'clean' to train without attacks."
        )
    return eps, words


def _source_options(source: SourceLike | None) -> dict[str, Any]:
    """Return the options of a candidate source as JSON values; none for one that was given by its name alone.

    Of a built source they are its public attributes that are words or numbers.
    """
    if source is None or isinstance(source, str):
        return {}
    if isinstance(source, Mapping):
        told = {name: value for name, value in source.items() if name != "name"}
        return {name: v if isinstance(v, bool | int | float | str | None) else str(v) for name, v in told.items()}
    plain = {name: value for name, value in vars(source).items() if isinstance(value, bool | int | float | str)}
    return {name: value for name, value in plain.items() if name != "name" and not name.startswith("_")}


def _fingerprint(pairs: OneToManyPairs) -> str:
    digest = hashlib.sha256(pairs.links.tobytes())
    for part in (*pairs.texts, *(picture.key for picture in pairs.images)):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


def _check_whole(least: int, **values: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"Expected `{name}` to be a whole number >= {least}, but got {value!r}.")


def _check_range(below: float, *, zero: bool = True, **values: float) -> None:
    for name, value in values.items():
        if not (0 <= value < below) or (value == 0 and not zero):
            low = "[0" if zero else "(0"
            raise ValueError(f"Expected `{name}` in {low}, {below:g}), but got {value!r}.")
