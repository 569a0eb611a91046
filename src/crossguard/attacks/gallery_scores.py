"""What a gallery ranks by, for candidates of all images and texts: two towers by the cosine, fusion models by match."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.ascent import Pixels
from crossguard.attacks.mixture import CHUNK, LOWEST, Links, Scores
from crossguard.attacks.objectives import product, unit
from crossguard.attacks.ranking import image_states, match_scores, text_states
from crossguard.models import FusionModel, States

_IMAGES_AT_ONCE = 32
_BYTES_OF_STATES = 1 << 28


@runtime_checkable
class GalleryScores(Scores, Protocol):
    """Scores of candidates, and of texts that are not among them yet."""

    def with_texts(
        self,
        images: Int64[Tensor, " images"],
        strings: Sequence[str],
        embeddings: Float[Tensor, "texts dim"],
        owners: Int64[Tensor, " texts"],
    ) -> Float[Tensor, "images texts"]:
        """Return the scores of candidates of images with new texts, which are variants of their owners."""
        ...


class TowerScores:
    """The cosine of two towers, as logits.

    Args:
        images: float [candidates, dim].
        texts: float [different texts, dim].
        rows: int64 [candidates], which of these each candidate is.
        scale: from cosines to logits.
    """

    def __init__(
        self,
        images: Float[Tensor, "images dim"],
        texts: Float[Tensor, "texts dim"],
        rows: Int64[Tensor, " candidates"],
        scale: float,
    ) -> None:
        self.images, self.texts, self.rows, self.scale = unit(images.float()), unit(texts.float()), rows, scale

    def __call__(
        self, images: Int64[Tensor, " images"], texts: Int64[Tensor, " texts"], /
    ) -> Float[Tensor, "images texts"]:
        """Return the scores of some candidates."""
        return self.scale * product(self.images[images], self.texts[self.rows[texts]].T)

    def with_texts(
        self,
        images: Int64[Tensor, " images"],
        strings: Sequence[str],
        embeddings: Float[Tensor, "texts dim"],
        owners: Int64[Tensor, " texts"],
    ) -> Float[Tensor, "images texts"]:
        """Return the scores with new texts."""
        return self.scale * product(self.images[images], unit(embeddings).T)


class MatchScores:
    """What a fusion model ranks by, among the true pairs and the nearest others of every image and of every text.

    Pairs are matched once; images are encoded some at a time, and the latest are kept.

    Args:
        model: the victim.
        read_pixels: gives the pixels of some candidates.
        strings: the candidates of texts.
        image_owners: whose the candidates of images are.
        text_owners: whose the candidates of texts are.
        contested: the pairs of images and texts that are asked about.
        known: what another one matched before; its candidates come first in this one.
    """

    def __init__(
        self,
        model: FusionModel,
        read_pixels: Callable[[Int64[np.ndarray, " some"]], Pixels],
        strings: Sequence[str],
        image_owners: Int64[Tensor, " image_candidates"],
        text_owners: Int64[Tensor, " text_candidates"],
        contested: Links,
        known: "MatchScores | None" = None,
    ) -> None:
        self.model, self._read, self.strings = model, read_pixels, strings
        self.image_owners, self.text_owners, self.contested = image_owners, text_owners, contested
        device = image_owners.device
        self._numbers: dict[str, int] = {} if known is None else known._numbers
        self._keys: Int64[Tensor, " pairs"] = torch.empty(0, dtype=torch.int64, device=device)
        self._values: Float[Tensor, " pairs"] = torch.empty(0, device=device)
        if known is not None:
            self._keys, self._values = known._keys, known._values
        self._states: OrderedDict[int, States] = OrderedDict() if known is None else known._states

    def __call__(
        self, images: Int64[Tensor, " images"], texts: Int64[Tensor, " texts"], /
    ) -> Float[Tensor, "images texts"]:
        """Return the scores of some candidates; as low as can be where a pair is not asked about."""
        return self._scores(images, [self.strings[j] for j in texts.tolist()], self.text_owners[texts])

    def with_texts(
        self,
        images: Int64[Tensor, " images"],
        strings: Sequence[str],
        embeddings: Float[Tensor, "texts dim"],
        owners: Int64[Tensor, " texts"],
    ) -> Float[Tensor, "images texts"]:
        """Return the scores with new texts."""
        return self._scores(images, strings, owners)

    @torch.no_grad()
    def _scores(
        self, images: Int64[Tensor, " images"], strings: Sequence[str], owners: Int64[Tensor, " texts"]
    ) -> Float[Tensor, "images texts"]:
        asked = self.contested.among(self.image_owners[images])[:, owners]
        rows, columns = asked.nonzero().unbind(dim=1)
        numbers = torch.tensor(
            [self._numbers.setdefault(s, len(self._numbers)) for s in strings], device=rows.device, dtype=torch.int64
        )
        keys = images[rows] * (1 << 31) + numbers[columns]
        missing, back = keys.unique(return_inverse=True)
        place = torch.searchsorted(self._keys, missing).clamp(max=max(0, len(self._keys) - 1))
        new = self._keys[place] != missing if len(self._keys) else torch.ones_like(missing, dtype=torch.bool)
        if bool(new.any()):
            self._learn(missing[new], dict(zip(numbers.tolist(), strings, strict=True)))
            place = torch.searchsorted(self._keys, missing)
        found = torch.full(asked.shape, LOWEST, device=rows.device)
        found[rows, columns] = self._values[place][back]
        return found

    def _learn(self, keys: Int64[Tensor, " pairs"], strings: dict[int, str]) -> None:
        images, texts = keys // (1 << 31), keys % (1 << 31)
        different = texts.unique()
        states = text_states(self.model, [strings[int(j)] for j in different])
        values = torch.empty(len(keys), device=keys.device)
        for some in images.unique().split(_IMAGES_AT_ONCE):
            here = torch.isin(images, some).nonzero().squeeze(1)
            seen = self._image_states(some)
            pairs = torch.stack(
                [torch.searchsorted(some, images[here]), torch.searchsorted(different, texts[here])], dim=1
            )
            values[here] = match_scores(self.model, seen, states, pairs)
        merged = torch.cat([self._keys, keys])
        order = merged.argsort()
        self._keys, self._values = merged[order], torch.cat([self._values, values])[order]

    def _image_states(self, images: Int64[Tensor, " some"]) -> States:
        new = [int(i) for i in images if int(i) not in self._states]
        if new:
            found = image_states(self.model, self._read(np.array(new)).to(images.device))
            for row, i in enumerate(new):
                self._states[i] = found.select(torch.tensor([row], device=images.device))
        kept = [self._states[int(i)] for i in images]
        size = kept[0].hidden.numel() * 4
        while len(self._states) * size > _BYTES_OF_STATES and len(self._states) > _IMAGES_AT_ONCE:
            self._states.popitem(last=False)
        return States(*(torch.cat([getattr(s, name) for s in kept]) for name in ("hidden", "mask", "embedding")))


def nearest_pairs(
    images: Float[Tensor, "images dim"],
    texts: Float[Tensor, "texts dim"],
    links: Int64[Tensor, "links 2"],
    *,
    negatives: int,
) -> Links:
    """Return the true pairs, and those of every image and of every text with the others nearest to it, each once.

    Args:
        images: embeddings.
        texts: embeddings.
        links: the true pairs.
        negatives: how many others.
    """
    found = [links]
    for queries, gallery, true, flipped in ((images, texts, links, False), (texts, images, links.flip(1), True)):
        known = Links(true, images=len(queries), texts=len(gallery))
        shown = unit(gallery.float())
        for rows in torch.arange(len(queries), device=links.device).split(max(1, CHUNK // max(1, len(gallery)))):
            others = product(unit(queries[rows].float()), shown.T).masked_fill(known.among(rows), -torch.inf)
            near = others.topk(min(negatives, len(gallery)), dim=1)
            pairs = torch.stack([rows[:, None].expand_as(near.indices), near.indices], dim=2)[near.values > -torch.inf]
            found.append(pairs.flip(1) if flipped else pairs)
    return Links(torch.cat(found).unique(dim=0), images=len(images), texts=len(texts))
