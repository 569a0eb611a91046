"""Zero-shot classification: a picture chooses among the names of classes (CLIP, Radford et al., 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize

from crossguard.attacks.storage import Storage
from crossguard.checks import WrongKind
from crossguard.data import LabelledImages, MultiModalSamples
from crossguard.evaluate.batches import preprocessed
from crossguard.evaluate.examples import Example, Item, spread_evenly
from crossguard.evaluate.features import check_model
from crossguard.evaluate.task import Part, Rows
from crossguard.evaluate.tasks.samples import Classification, Loaded, NamedAttack
from crossguard.models import VisionLanguageModel
from crossguard.progress import Reporter
from crossguard.threat import ThreatModel


class ClassChoice(nn.Module):
    """A two-tower model as a classifier of pictures among names of classes.

    Logits are the cosine with a class's embedding, the mean of its prompts' unit embeddings, times the model's scale.

    Args:
        model: the two towers.
        data: the classes and the prompts.
    """

    modalities = ("image",)

    def __init__(self, model: VisionLanguageModel, data: LabelledImages) -> None:
        super().__init__()
        self.towers, self.name, self.classes = model, model.name, tuple(data.classes)
        self._prompts = [data.prompts(name) for name in data.classes]

    @cached_property
    def embeddings(self) -> Float[Tensor, "classes dim"]:
        """One unit vector for each class, computed once."""
        with torch.no_grad():
            means = [normalize(self.towers.encode_text(list(own)).float(), dim=-1).mean(dim=0) for own in self._prompts]
        return normalize(torch.stack(means), dim=-1)

    def forward(self, inputs: Mapping[str, Float[Tensor, "images ..."]]) -> Float[Tensor, "images classes"]:
        """Return logits of pictures in [0, 1]."""
        images = normalize(self.towers.encode_image(inputs["image"]).float(), dim=-1)
        return self.towers.logit_scale * images @ self.embeddings.T


@dataclass(frozen=True)
class ZeroShot(Classification):
    """Which class each picture is of, told by the cosine with the prompts of the classes; pictures are attacked.

    Rows, one per picture: as in classification, with `image` (the picture's key).
    """

    name: ClassVar[str] = "zero-shot"
    heading: ClassVar[str] = "Zero-shot classification"
    explained: ClassVar[str] = "Accuracy: share of pictures whose own class is the nearest."
    headline: ClassVar[tuple[str, ...]] = ("accuracy",)
    reads: ClassVar[str] = "images"
    models: ClassVar[tuple[str, ...]] = ("vision-language",)

    @classmethod
    def fits(cls, model: object, data: object) -> bool:
        """Return whether the data are pictures with a class each."""
        return isinstance(data, LabelledImages)

    @cached_property
    def net(self) -> Any:
        """The towers as a classifier."""
        return ClassChoice(self.model, self.data).eval()

    @property
    def _storage(self) -> dict[str, Storage]:
        return {"image": Storage.pixels()}

    def check(self, attack: NamedAttack | None, threat: ThreatModel | None) -> None:
        """Refuse a model without two towers, and what the attack cannot work with."""
        check_model(self.model)
        if not isinstance(self.data, LabelledImages):
            raise WrongKind(
                f"Expected LabelledImages (see crossguard.load_images), but got {type(self.data).__name__}."
            )
        self.check_attack(attack, threat)

    def facts(self, progress: Reporter) -> dict[str, Any]:
        """Return the fingerprint of the data."""
        return {
            "content": images_fingerprint(self.data),
            "data_notes": list(self.data.notes),
        }

    @property
    def samples(self) -> str:
        """Pictures and classes."""
        return f"{len(self.data):,} pictures of {len(self.data.classes):,} classes"

    def load_batch(self, ids: Int64[np.ndarray, " samples"], device: torch.device) -> Loaded:
        """Decode the pictures of a batch."""
        pixels = preprocessed(self.model, [self.data.image(int(i)) for i in ids])
        samples = MultiModalSamples(
            name=self.data.name,
            split=self.data.split,
            modalities={"image": pixels.numpy()},
            labels=self.data.labels[ids],
            classes=self.net.classes,
            groups=self.data.groups[ids],
        )
        return Loaded(samples, ids, device)

    def rows_of(self, batch: Loaded, clean: Any, robust: Any, found: Any) -> list[dict[str, Any]]:
        """Return one row per picture."""
        rows = super().rows_of(batch, clean, robust, found)
        return [{"image": self.data.images[int(i)].key, **row} for i, row in zip(batch.ids, rows, strict=True)]

    def notes(self, rows: Rows, settings: Mapping[str, Any]) -> list[str]:
        """Return the prompts, and what the attack raised."""
        said = ", ".join(repr(template) for template in self.data.templates[:3])
        more = "" if len(self.data.templates) <= 3 else f" and {len(self.data.templates) - 3} more"
        return [f"{len(self.data.classes):,} classes, named as {said}{more}.", *super().notes(rows, settings)[1:]]

    def examples(self, rows: Rows, part: Part, *, count: int) -> tuple[Example, ...]:
        """Return pictures spread evenly over those that are right without attack."""
        right = [place for place, row in enumerate(rows) if row["clean"] == row["label"]]
        chosen, examples = spread_evenly(right or list(range(len(rows))), count=count), []
        for number, ids in enumerate(self.batches):
            here = [place for place in chosen if place in ids]
            if not here:
                continue
            stored = part.store.read(number, ids)
            pixels = self.load_batch(ids, torch.device("cpu")).samples.modalities["image"]
            for place in here:
                row, at = rows[place], int(np.searchsorted(ids, place))
                clean = _picture(pixels[at])
                asked = Item(f"A picture of {row['label']}", picture=clean)
                said = {"Without attack": (Item(text=row["clean"], right=row["clean"] == row["label"]),)}
                if stored is not None:
                    asked = Item(asked.title, picture=_picture(stored["values/image"][at]), clean=clean)
                    said["Under attack"] = (Item(text=row["robust"], right=row["robust"] == row["label"]),)
                examples.append(Example((asked,), said))
        return tuple(examples)


def _picture(pixels: Float[np.ndarray, "3 height width"]) -> np.ndarray:
    return (pixels * 255).round().astype(np.uint8).transpose(1, 2, 0)


def images_fingerprint(data: LabelledImages) -> str:
    """Return 32 hexadecimal digits that change with any picture, label, class name or prompt."""
    digest = blake2b(f"{data.classes!r} {data.templates!r};".encode(), digest_size=16)
    for picture in data.images:
        content = picture.read()
        digest.update(f"{picture.key!r} {len(content)};".encode())
        digest.update(content)
    digest.update(data.labels.tobytes())
    return digest.hexdigest()
