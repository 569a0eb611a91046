"""Class names under attack: every name within a budget of words, and which of them harm a picture most.

An attacker who may edit class names chooses, for each picture, how its own class and the others are called. Given
the picture the choices are independent: the own class takes the name that is farthest from it, each other class the
nearest. So among the names that are tried the choice is the worst there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from crossguard.attacks.candidates import CandidateSource, propose
from crossguard.attacks.word_variants import EditedText
from crossguard.data.labelled import LabelledImages, fill
from crossguard.models import VisionLanguageModel
from crossguard.threat import WordEdits

_TEXTS_AT_ONCE = 512
_KEPT = 8
"""Names of a class that a further edit starts from: those farthest from the class as it is called."""


@dataclass(frozen=True)
class NamePool:
    """Names that classes may be called by.

    Args:
        names: all of them, class by class; each class's own name comes first.
        table: int64 [classes, most], which names are of a class, filled up with its own.
        embeddings: float [names, dim], one unit vector for each: the mean of its prompts.
    """

    names: tuple[str, ...]
    table: Int64[Tensor, "classes most"]
    embeddings: Float[Tensor, "names dim"]

    def worst(
        self, images: Float[Tensor, "images dim"], labels: Int64[Tensor, " images"]
    ) -> Int64[Tensor, "images classes"]:
        """Return, per picture (a unit vector), the farthest name of its own class and the nearest of every other."""
        table = self.table.to(images.device)
        scores = (images @ self.embeddings.T)[:, table]
        own = torch.nn.functional.one_hot(labels, len(table)).bool().unsqueeze(-1)
        best = torch.where(own, -scores, scores).argmax(dim=-1)
        return table.expand(len(images), -1, -1).gather(2, best.unsqueeze(-1)).squeeze(-1)


def plain_pool(model: VisionLanguageModel, data: LabelledImages) -> NamePool:
    """Return the classes under their own names."""
    return _pool(model, data, [[name] for name in data.classes])


def pool_within(
    model: VisionLanguageModel, data: LabelledImages, budget: WordEdits, source: CandidateSource
) -> NamePool:
    """Return all names within a budget whose words a source proposes, but none that another class has.

    With more than one word, a further edit starts from a few names of each class alone (`_KEPT`).
    """
    taken = {name.casefold() for name in data.classes}
    names = [[name] for name in data.classes]
    fronts = [[name] for name in data.classes]
    for _ in range(budget.words):
        fronts = [_edited(model, source, front, budget) for front in fronts]
        for known, front in zip(names, fronts, strict=True):
            seen = {name.casefold() for name in known} | taken
            known += [name for name in dict.fromkeys(front) if name.casefold() not in seen]
        if budget.words > 1:
            fronts = _farthest(model, data, names)
    return _pool(model, data, names)


def _edited(model: VisionLanguageModel, source: CandidateSource, front: Sequence[str], budget: WordEdits) -> list[str]:
    if not front:
        return []
    proposed = propose(source, list(front), model=model)
    return [
        text
        for name, candidates in zip(front, proposed, strict=True)
        for *_, text in EditedText(name, candidates, budget.kinds).variants(every=True)
    ]


def _farthest(model: VisionLanguageModel, data: LabelledImages, names: Sequence[Sequence[str]]) -> list[list[str]]:
    pool = _pool(model, data, names)
    chosen = []
    for row, known in enumerate(names):
        own = pool.table[row, : len(known)]
        likeness = pool.embeddings[own] @ pool.embeddings[own[0]]
        chosen.append([known[place] for place in likeness.argsort()[:_KEPT].tolist() if place])
    return chosen


def _pool(model: VisionLanguageModel, data: LabelledImages, names: Sequence[Sequence[str]]) -> NamePool:
    flat = tuple(name for known in names for name in known)
    most = max(map(len, names))
    table = torch.zeros(len(names), most, dtype=torch.int64)
    start = 0
    for row, known in enumerate(names):
        table[row] = start
        table[row, : len(known)] = torch.arange(start, start + len(known))
        start += len(known)
    return NamePool(flat, table, embed_names(model, flat, data.templates))


@torch.no_grad()
def embed_names(
    model: VisionLanguageModel, names: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "names dim"]:
    """Return one unit vector per name: the mean of its prompts' unit embeddings; equal prompts are embedded once."""
    prompts = [fill(template, name) for name in names for template in templates]
    first = {text: place for place, text in enumerate(dict.fromkeys(prompts))}
    texts = list(first)
    # Prompts of equal length come together, so that little is padded.
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    parts = [
        normalize(model.encode_text([texts[place] for place in order[at : at + _TEXTS_AT_ONCE]]).float(), dim=-1)
        for at in range(0, len(order), _TEXTS_AT_ONCE)
    ]
    embedded = torch.cat(parts)
    back = torch.empty(len(order), dtype=torch.int64)
    back[torch.tensor(order)] = torch.arange(len(order))
    rows = back[torch.tensor([first[text] for text in prompts])].to(embedded.device)
    return normalize(embedded[rows].unflatten(0, (len(names), len(templates))).mean(dim=1), dim=-1)
