"""`LabelledImages`: pictures with one class each, the names of the classes, and the prompts that name them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Int64
from PIL import Image

from crossguard.checks import some
from crossguard.data.pairs import OneToManyPairs, evenly
from crossguard.data.pictures import Picture
from crossguard.notebook import Shown

TEMPLATES = ("a photo of a {c}.",)
PLACES = ("{c}", "{}")
"""Where a class name goes, as clip_benchmark and open_clip spell it."""


@dataclass(frozen=True, repr=False)
class LabelledImages(Shown):
    """Pictures with a class each, for zero-shot classification.

    Args:
        name: name of the data set.
        split: name of the split.
        images: the pictures.
        labels: int64 [images], the class of each.
        classes: the names of the classes, as a prompt says them.
        templates: prompts, each with `{c}` or `{}` in the place of a class name.
        notes: what the loader saw and a reader of the results should know.
        groups: int64 [images], equal where pictures belong together (drawings of one thing); default: each by itself.

    Raises:
        ValueError: no pictures, lengths that differ, labels out of range, blank names, a template without a place.

    Example:
        >>> from pathlib import Path
        >>> pets = LabelledImages("pets", "test", (Picture("a", Path("a.png")),), np.array([1]), ("cat", "dog"))
        >>> pets.prompts("dog")
        ('a photo of a dog.',)
    """

    name: str
    split: str
    images: Sequence[Picture]
    labels: Int64[np.ndarray, " images"]
    classes: Sequence[str]
    templates: Sequence[str] = TEMPLATES
    notes: Sequence[str] = ()
    groups: Int64[np.ndarray, " images"] = field(default_factory=lambda: np.zeros(0, np.int64))

    def told(self) -> str:
        """Return its name and size."""
        return f"{self.name!r}, split={self.split!r}, {len(self.images):,} images, {len(self.classes):,} classes"

    def __post_init__(self) -> None:
        for name in ("images", "classes", "templates", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        groups = self.groups if len(self.groups) else np.arange(len(self.images))
        for name, values in (("labels", self.labels), ("groups", groups)):
            held = np.array(values, dtype=np.int64)
            held.setflags(write=False)
            object.__setattr__(self, name, held)
        self._check()

    def _check(self) -> None:
        shapes = {name: list(getattr(self, name).shape) for name in ("labels", "groups")}
        if not len(self.images) or any(shape != [len(self.images)] for shape in shapes.values()):
            raise ValueError(
                f"Expected pictures with a label and a group each, but got {len(self.images)} pictures, labels of "
                f"shape {shapes['labels']} and groups of shape {shapes['groups']}."
            )
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            raise ValueError(
                f"Expected labels in [0, {len(self.classes)}), but got {self.labels.min()}..{self.labels.max()}."
            )
        blank = [place for place, name in enumerate(self.classes) if not name.strip()]
        if blank:
            raise ValueError(f"Expected names of classes, but those of {some(blank)} are blank.")
        plain = [template for template in self.templates if not any(place in template for place in PLACES)]
        if plain or not self.templates:
            raise ValueError(
                f"Expected templates with {{c}} or {{}} in the place of a class name, but got {some(plain)!r}."
            )

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Image.Image:
        """Decode image `index` to an upright RGB `PIL.Image`."""
        return self.images[index].load()

    def prompts(self, name: str) -> tuple[str, ...]:
        """Return the prompts of a class."""
        return tuple(fill(template, name) for template in self.templates)

    def select(self, images: Sequence[int] | Int64[np.ndarray, " chosen"]) -> "LabelledImages":
        """Return the chosen images, in the order given; all classes stay."""
        chosen = np.asarray(images, dtype=np.int64)
        pictures = tuple(self.images[i] for i in chosen.tolist())
        return replace(self, images=pictures, labels=self.labels[chosen], groups=self.groups[chosen])

    def head(self, max_images: int) -> "LabelledImages":
        """Return the first `max_images` images."""
        return self.select(range(min(max_images, len(self))))

    def spread(self, max_images: int) -> "LabelledImages":
        """Return `max_images` images, evenly spread from the first to the last."""
        return self.select(evenly(max_images, len(self)))

    def draw(self, max_images: int, *, seed: int) -> "LabelledImages":
        """Return `max_images` images at random, each class as often as it is in the data to within one picture.

        A systematic sample: images stand by class, shuffled within it, and every n-th is taken from a random start on,
        so that each has the same chance and accuracies of the sample are those of the whole on average.
        """
        if max_images >= len(self):
            return self
        random = np.random.default_rng(seed)
        shuffled = random.permutation(len(self))
        ordered = shuffled[np.argsort(self.labels[shuffled], kind="stable")]
        places = ((np.arange(max_images) + random.random()) * (len(self) / max_images)).astype(np.int64)
        return self.select(np.sort(ordered[places]))


def fill(template: str, name: str) -> str:
    """Return a prompt: the template with a class name in its place.

    Example:
        >>> fill("a photo of a {c}.", "cat"), fill("a {}, a kind of pet", "dog")
        ('a photo of a cat.', 'a dog, a kind of pet')
    """
    return template.replace(PLACES[0], name) if PLACES[0] in template else template.replace(PLACES[1], name)


def labelled(pairs: OneToManyPairs, classes: Sequence[str] | None, templates: Sequence[str]) -> LabelledImages:
    """Return pairs whose texts are labels as labelled images.

    Args:
        pairs: images, each with one text: the number of a class, or the label itself where `classes` are not known.
        classes: the names of the classes; None: the labels, sorted.
        templates: the prompts.

    Raises:
        ValueError: an image with several labels, or numbers beside names.
    """
    several = np.flatnonzero(np.bincount(pairs.links[:, 0]) > 1)
    if len(several):
        raise ValueError(
            f"Expected one label for each image, but {len(several)} have several: "
            f"{some([pairs.images[i].key for i in several.tolist()])}."
        )
    if classes is None:
        numbers = [text.removeprefix("-").isdecimal() for text in pairs.texts]
        order = sorted(pairs.texts, key=int) if all(numbers) else sorted(pairs.texts)
        place = {text: index for index, text in enumerate(order)}
        classes = order
    else:
        place = {text: int(text) for text in pairs.texts}
    labels = np.array([place[pairs.texts[j]] for j in pairs.links[:, 1]], dtype=np.int64)
    idle = [name for index, name in enumerate(classes) if index not in set(labels.tolist())]
    notes = [f"{len(idle)} of {len(classes)} classes have no picture: {some(idle)}"] if idle else []
    return LabelledImages(
        name=pairs.name,
        split=pairs.split,
        images=pairs.images,
        labels=labels,
        classes=classes,
        templates=templates,
        notes=(*pairs.notes, *notes),
    )
