"""`Aim`: a chosen text that images are to find, or a chosen image that texts are to find, in retrieval."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.attacks.ranking import image_states, text_states
from crossguard.attacks.towards import Chosen
from crossguard.checks import nearest, shown
from crossguard.data import OneToManyPairs
from crossguard.evaluate.ranking import Side
from crossguard.evaluate.retrieval import Direction
from crossguard.models import States, VisionLanguageModel
from crossguard.models.unseen import same_tokens


@dataclass(frozen=True)
class Aim:
    """An item of the gallery that all queries of a direction are to find first.

    Args:
        direction: "tr" for a text, which images find; "ir" for an image, which texts find.
        called: the text, or the key of the image.
        places: its place in the data; of a text also those that the model cannot tell from it.
        owners: the queries that it belongs to anyway.
        queries: how many queries there are.
    """

    direction: Direction
    called: str
    places: Int64[np.ndarray, " same"]
    owners: Int64[np.ndarray, " owners"]
    queries: int

    @classmethod
    def at_text(cls, model: VisionLanguageModel, pairs: OneToManyPairs, text: str) -> "Aim":
        """Aim at a text of the data.

        Raises:
            ValueError: there is no such text; the nearest is named.
        """
        if text not in pairs.texts:
            raise ValueError(
                f"Expected `target_text` to be one of the {len(pairs.texts)} texts of {pairs.name!r}, but got "
                f"{shown(text)}: {nearest(text, pairs.texts)}."
            )
        same = same_tokens(model, pairs.texts)
        places = np.flatnonzero(same == same[pairs.texts.index(text)])
        owners = np.unique(pairs.links[np.isin(pairs.links[:, 1], places), 0])
        return cls("tr", text, places, owners, len(pairs.images))

    @classmethod
    def at_image(cls, pairs: OneToManyPairs, key: str) -> "Aim":
        """Aim at an image of the data, by its key.

        Raises:
            ValueError: there is no such image; the nearest is named.
        """
        keys = [picture.key for picture in pairs.images]
        if key not in keys:
            raise ValueError(
                f"Expected `target_image` to be the key of one of the {len(keys)} images of {pairs.name!r}, but got "
                f"{shown(key)}: {nearest(key, keys)}."
            )
        place = keys.index(key)
        return cls("ir", key, np.array([place]), pairs.texts_of(place), len(pairs.texts))

    def chosen(self, model: VisionLanguageModel, clean: Side, device: torch.device) -> Chosen:
        """Return it as attacks take it."""

        @torch.no_grad()
        def read(places: list[int]) -> States:
            if self.direction == "tr":
                return text_states(model, [clean.strings[place] for place in places])
            return image_states(model, clean.read_pixels(np.array(places)).to(device))

        places, owners = (torch.tensor(ids, device=device) for ids in (self.places, self.owners))
        return Chosen(clean.of(self.direction, "gallery"), places, owners, read)

    def links(self, device: torch.device) -> Int64[torch.Tensor, "links 2"]:
        """Return links (image, text) of every query with it: by these its rank is that of a best partner."""
        asking = np.repeat(np.arange(self.queries), len(self.places))
        found = np.tile(self.places, self.queries)
        ends = (asking, found) if self.direction == "tr" else (found, asking)
        return torch.from_numpy(np.stack(ends, axis=1)).to(device)
