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
from torch.nn.functional import log_softmax, normalize

from crossguard.attacks.budget import count_word_edits
from crossguard.attacks.candidates import CandidateSource
from crossguard.attacks.sources import SourceLike, make_source
from crossguard.attacks.storage import Storage
from crossguard.attacks.victims import Plain, Victim
from crossguard.checks import WrongKind
from crossguard.data import LabelledImages, MultiModalSamples, PairBatch
from crossguard.data.labelled import fill
from crossguard.evaluate.batches import preprocessed
from crossguard.evaluate.examples import Example, Item, spread_evenly
from crossguard.evaluate.features import check_model
from crossguard.evaluate.fingerprint import add_pictures, describe
from crossguard.evaluate.sanity import FEWEST, warn_of_masking
from crossguard.evaluate.store import Arrays
from crossguard.evaluate.task import Part, Rows
from crossguard.evaluate.tasks.class_names import NamePool, plain_pool, pool_within
from crossguard.evaluate.tasks.samples import Classification, Loaded, NamedAttack
from crossguard.models import VisionLanguageModel
from crossguard.models.inputs import input_tensor
from crossguard.progress import Reporter
from crossguard.threat import LInf, ThreatModel, WordEdits


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
        self._data = data

    @cached_property
    def names(self) -> NamePool:
        """The classes under their own names, embedded once."""
        return plain_pool(self.towers, self._data)

    def embed(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images dim"]:
        """Return unit vectors of pictures in [0, 1]."""
        return normalize(self.towers.encode_image(pixels).float(), dim=-1)

    def forward(self, inputs: Mapping[str, Float[Tensor, "images ..."]]) -> Float[Tensor, "images classes"]:
        """Return logits of pictures in [0, 1]."""
        return self.towers.logit_scale * self.embed(inputs["image"]) @ self.names.embeddings.T


class Called:
    """A victim whose classes are called otherwise, picture by picture.

    Args:
        choice: the classifier.
        pool: names and their embeddings.
        chosen: int64 [images, classes], the name of every class for every picture.
        places: int64 [images], ascending, the pictures' places in the data set.
    """

    modalities: tuple[str, ...] = ("image",)
    passes = 1

    def __init__(
        self,
        choice: ClassChoice,
        pool: NamePool,
        chosen: Int64[Tensor, "images classes"],
        places: Int64[Tensor, " images"],
    ) -> None:
        self.module, self.name, self.classes = choice, choice.name, choice.classes
        self.pool, self.chosen, self.places = pool, chosen, places

    def logits(self, images: Float[Tensor, "rows dim"], ids: Int64[Tensor, " rows"]) -> Float[Tensor, "rows classes"]:
        """Return the logits of embedded pictures."""
        names = self.chosen[torch.searchsorted(self.places, ids.to(self.places.device))]
        return self.module.towers.logit_scale * (images @ self.pool.embeddings.T).gather(1, names.to(images.device))

    def log_probabilities(
        self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]
    ) -> Float[Tensor, "rows classes"]:
        """Return differentiable log-probabilities."""
        return log_softmax(self.logits(self.module.embed(inputs["image"]), ids), dim=1)

    def decide(self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]) -> Int64[Tensor, " rows"]:
        """Return the classes that are answered."""
        return self.logits(self.module.embed(inputs["image"]), ids).argmax(dim=1)


class InHalf:
    """A victim whose gradients are taken in half precision (bfloat16), and whose answers are those of single precision.

    Args:
        victim: what it is.
    """

    def __init__(self, victim: Victim) -> None:
        self.victim, self.module = victim, victim.module
        self.name, self.modalities, self.classes, self.passes = (
            victim.name, victim.modalities, victim.classes, victim.passes
        )  # fmt: skip

    def log_probabilities(
        self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]
    ) -> Float[Tensor, "rows labels ..."]:
        """Return the victim's, computed in half precision."""
        with torch.autocast(next(iter(inputs.values())).device.type, dtype=torch.bfloat16):
            return self.victim.log_probabilities(inputs, ids).float()

    def decide(self, inputs: Mapping[str, Tensor], ids: Int64[Tensor, " rows"]) -> Int64[Tensor, "rows ..."]:
        """Return the victim's own answers."""
        return self.victim.decide(inputs, ids)


@dataclass(frozen=True)
class ZeroShot(Classification):
    """Which class each picture is of, told by the cosine with the prompts of the classes; pictures are attacked.

    A budget for the text is one for the names of the classes, which are edited picture by picture (see `class_names`).

    Rows, one per picture: as in classification, with `image` (the picture's key); under an attack on names with `names`
    (what its own class, and the class that was answered, were called); with `half_first` also `half`, whether half
    precision was enough to change the answer.

    Args:
        half_first: attack in half precision first, and again in single precision what stands. Answers are those of
            single precision throughout, so that no more pictures stand than under single precision alone.
        source: where words for class names come from, see `crossguard list sources`.
    """

    half_first: bool = False
    source: SourceLike = "thesaurus"

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

    def check_attack(self, attack: NamedAttack | None, threat: ThreatModel | None) -> None:
        """Refuse an attack that cannot work within the image's budget, and an unknown source of words."""
        if threat is None or "text" not in threat:
            return super().check_attack(attack, threat)
        if not isinstance(threat["text"], WordEdits):
            raise ValueError(f"Expected WordEdits as the budget of class names, but got {threat['text']!r}.")
        self._words  # noqa: B018  raises where there is no such source
        return super().check_attack(attack, threat.only("image") if "image" in threat else ThreatModel(image=LInf(0.0)))

    @cached_property
    def _words(self) -> CandidateSource:
        return make_source(self.source)

    def facts(self, progress: Reporter) -> dict[str, Any]:
        """Return the fingerprint of the data."""
        return {
            "content": images_fingerprint(self.data),
            "data_notes": list(self.data.notes),
        }

    def attack_facts(self, attack: NamedAttack | None) -> dict[str, Any]:
        """Return also whether half precision comes first, and where words come from."""
        told = super().attack_facts(attack)
        if attack is not None:
            told |= {"half_first": self.half_first, "source": describe(self.source)}
        return told

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

    def attack(self, batch: Loaded, clean: Any, attack: NamedAttack, threat: ThreatModel, seed: int) -> Arrays:
        """Attack pictures, names, or both.

        With both, the names that harm the picture as it is come first, then the picture alone, then the picture under
        those names; after each change of the picture its names are chosen again. What stands is attacked on.
        """
        budget = threat.get("text")
        if not isinstance(budget, WordEdits):
            return self._attack_pictures(Plain(self.net), batch, clean, attack, threat, seed)
        pool = self._pool(budget)
        found, chosen = self._renamed(batch, pool, None)
        if "image" not in threat:
            return found
        image = threat.only("image")
        for renamed in (False, True):
            stands = np.flatnonzero(found["attacked"] == batch.samples.labels)
            if not len(stands):
                break
            left = Loaded(batch.samples.select(stands), batch.ids[stands], batch.device)
            victim: Victim = Plain(self.net)
            if renamed:
                rows = torch.from_numpy(stands).to(chosen.device)
                victim = Called(self.net, pool, chosen[rows], torch.from_numpy(left.ids).to(batch.device))
            moved = self._attack_pictures(victim, left, left.samples.labels, attack, image, seed)
            again, _ = self._renamed(left, pool, moved)
            found = {key: _replaced(values, stands, again[key]) for key, values in found.items()}
        return found

    @torch.no_grad()
    def _pool(self, budget: WordEdits) -> NamePool:
        if budget not in self._pools:
            self._pools[budget] = pool_within(self.model, self.data, budget, self._words)
        return self._pools[budget]

    @cached_property
    def _pools(self) -> dict[WordEdits, NamePool]:
        return {}

    @torch.no_grad()
    def _renamed(
        self, batch: Loaded, pool: NamePool, moved: Arrays | None
    ) -> tuple[dict[str, np.ndarray], Int64[Tensor, "images classes"]]:
        """Return what is found for pictures, moved or not, under the names that harm them most; and these names."""
        values = batch.samples.modalities["image"] if moved is None else moved["values/image"]
        images = self.net.embed(input_tensor(values, batch.device))
        labels = torch.from_numpy(batch.samples.labels).to(batch.device)
        chosen, places = pool.worst(images, labels), torch.from_numpy(batch.ids).to(batch.device)
        answers = Called(self.net, pool, chosen, places).logits(images, places).argmax(dim=1)
        names = np.array(pool.names)
        rows = np.arange(len(batch.ids))
        called = {"own": batch.samples.labels, "answered": answers.cpu().numpy()}
        now = {which: names[chosen.cpu().numpy()[rows, label]] for which, label in called.items()}
        before = {which: names[pool.table[:, 0].numpy()[label]] for which, label in called.items()}
        edits = [[count_word_edits(*pair) or 0 for pair in zip(before[w], now[w], strict=True)] for w in called]
        found = {
            "attacked": answers.cpu().numpy(),
            "values/image": values,
            "edited/image": np.zeros(len(rows), np.int64) if moved is None else moved["edited/image"],
            "linf/image": np.zeros(len(rows)) if moved is None else moved["linf/image"],
            "edited/text": np.max(edits, axis=0).astype(np.int64),
            **{f"names/{which}": texts for which, texts in now.items()},
        }
        if self.half_first:
            found["half"] = np.zeros(len(rows), bool) if moved is None else moved["half"]
        return found, chosen

    def _attack_pictures(
        self, victim: Victim, batch: Loaded, clean: Any, attack: NamedAttack, threat: ThreatModel, seed: int
    ) -> dict[str, np.ndarray]:
        if not self.half_first:
            return self.attacked_on(victim, batch, clean, attack, threat, seed)
        found = self.attacked_on(InHalf(victim), batch, clean, attack, threat, seed)
        found["half"] = found["attacked"] != batch.samples.labels
        stands = np.flatnonzero(~found["half"])
        if len(stands):
            left = Loaded(batch.samples.select(stands), batch.ids[stands], batch.device)
            again = self.attacked_on(victim, left, clean[stands], attack, threat, seed) | {
                "half": found["half"][stands]
            }
            found = {key: _replaced(values, stands, again[key]) for key, values in found.items()}
        return found

    def rows_of(self, batch: Loaded, clean: Any, robust: Any, found: Any) -> list[dict[str, Any]]:
        """Return one row per picture."""
        rows = super().rows_of(batch, clean, robust, found)
        rows = [{"image": self.data.images[int(i)].key, **row} for i, row in zip(batch.ids, rows, strict=True)]
        for place, row in enumerate(rows if found is not None else []):
            if "half" in found:
                row["half"] = bool(found["half"][place])
            if "names/own" in found:
                row["names"] = {which: str(found[f"names/{which}"][place]) for which in ("own", "answered")}
        return rows

    def warnings(self, attack: NamedAttack | None, threat: ThreatModel | None) -> list[str]:
        """Return what `warn_of_masking` says of a few pictures with their own classes."""
        return self._masked if threat is not None and "image" in threat else []

    @cached_property
    def _masked(self) -> list[str]:
        few = np.arange(min(FEWEST, len(self.data)))
        place = torch.from_numpy(few)
        names = [self.data.classes[label] for label in self.data.labels[few]]
        batch = PairBatch(
            pixels=preprocessed(self.model, [self.data.image(int(i)) for i in few]),
            texts=tuple(fill(self.data.templates[0], name) for name in names),
            links=torch.stack([place, place], dim=1),
            image_ids=place,
            text_ids=place,
        )
        return warn_of_masking(self.model, batch.to(self.model.logit_scale.device), modalities=("image",))

    def notes(self, rows: Rows, settings: Mapping[str, Any]) -> list[str]:
        """Return the prompts, and what the attack raised."""
        said = ", ".join(repr(template) for template in self.data.templates[:3])
        more = "" if len(self.data.templates) <= 3 else f" and {len(self.data.templates) - 3} more"
        told = [f"{len(self.data.classes):,} classes, named as {said}{more}.", *super().notes(rows, settings)[1:]]
        if rows and "half" in rows[0]:
            judged = [row for row in rows if row["clean"] == row["label"]]
            half = sum(row["half"] for row in judged)
            told.append(
                f"Attacked in half precision first: {half:,} of {len(judged):,} right answers fell there, confirmed in "
                "single precision; the others were attacked again in single precision."
            )
        return told

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


def _replaced(values: np.ndarray, rows: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return a copy with some rows replaced; strings become as long as either needs."""
    result = values.astype(np.promote_types(values.dtype, new.dtype))
    result[rows] = new
    return result


def _picture(pixels: Float[np.ndarray, "3 height width"]) -> np.ndarray:
    return (pixels * 255).round().astype(np.uint8).transpose(1, 2, 0)


def images_fingerprint(data: LabelledImages) -> str:
    """Return 32 hexadecimal digits that change with any picture, label, class name or prompt."""
    digest = blake2b(f"{data.classes!r} {data.templates!r};".encode(), digest_size=16)
    add_pictures(digest, data.images)
    digest.update(data.labels.tobytes())
    return digest.hexdigest()
