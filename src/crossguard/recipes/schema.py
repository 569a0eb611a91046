"""What a recipe may say: one model per verb; every field is checked before any work starts."""

import os.path
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from crossguard.evaluate.measure import threats_over
from crossguard.threat import L2, EditKind, Elements, LInf, Patch, Target, ThreatModel, WordEdit, WordEdits

_FRACTION = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")


def _number(value: object) -> object:
    """Read "2/255" as a number; leave the rest to the field's own check."""
    parts = _FRACTION.fullmatch(value) if isinstance(value, str) else None
    if parts is None or float(parts[2]) == 0:
        return value
    return float(parts[1]) / float(parts[2])


def _numbers(value: object) -> object:
    """Read options like `step: 1/255` as numbers."""
    return {key: _number(option) for key, option in value.items()} if isinstance(value, dict) else value


def _expanded(path: str) -> str:
    """Return a path with `~` as the home folder."""
    if not path.strip() or "\0" in path:
        raise ValueError("expected a path")
    return os.path.expanduser(path)


_MOST = 2**31 - 1
"""The largest number of anything that is counted."""

Number = Annotated[float, BeforeValidator(_number)]
Count = Annotated[int, Field(ge=0, le=_MOST)]
Positive = Annotated[int, Field(gt=0, le=_MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Place = Annotated[str, AfterValidator(_expanded)]
Drawing = Literal["random", "fixed", "product"]
Options = Annotated[dict[str, Any], BeforeValidator(_numbers)]


SPELLED = {LInf: "eps", L2: "l2", Elements: "elements", Patch: "patch"}
"""What budgets are called in recipes."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SampleBudget(_Section):
    """Budget of one modality of sensors or scenes."""

    eps: Annotated[
        Number | None, Field(ge=0, le=1, description="L-inf: largest change of a value, a share of the range")
    ] = None
    l2: Annotated[Number | None, Field(ge=0, description="Euclidean norm of the change, in shares of the range")] = None
    elements: Annotated[
        Count | None, Field(description="most changed time steps, pixels or features, of any values")
    ] = None
    patch: Annotated[
        list[Count] | None,
        Field(
            min_length=2,
            max_length=2,
            description="[height, width] of one rectangle of any values, anywhere; of time steps [1, steps]",
        ),
    ] = None

    @property
    def _given(self) -> list[str]:
        return [name for name in SPELLED.values() if name in self.model_fields_set and getattr(self, name) is not None]

    @model_validator(mode="after")
    def _one_of_them(self) -> "SampleBudget":
        if len(self._given) != 1:
            raise ValueError(
                f"expected one of {', '.join(SPELLED.values())}, but got {', '.join(self._given) or 'none'}"
            )
        return self

    def build(self) -> LInf | L2 | Elements | Patch:
        """Return the value object that attacks take."""
        if self.patch is not None:
            return Patch(*self.patch)
        if self.elements is not None:
            return Elements(self.elements)
        return L2(self.l2) if self.l2 is not None else LInf(self.eps or 0.0)


class ImageBudget(SampleBudget):
    """Budget of the image; by default L-inf of 2/255. Elements are the model's own patches."""

    eps: Annotated[Number | None, Field(ge=0, le=1, description="largest change of a pixel; pixels are in [0, 1]")] = (
        2 / 255
    )
    elements: Annotated[Count | None, Field(description="most changed patches of the model, of any values")] = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "ImageBudget":
        if len(self._given) > 1:
            raise ValueError(f"expected one of {', '.join(SPELLED.values())}, but got {', '.join(self._given)}")
        return self


class TextBudget(_Section):
    """Word budget of the text."""

    words: Annotated[Count, Field(description="most edited words of a text")] = 1
    kinds: Annotated[list[WordEdit], Field(min_length=1, description="some of substitution, insertion, deletion")] = [
        "substitution"
    ]

    def build(self) -> WordEdits:
        """Return the value object that attacks take."""
        return WordEdits(words=self.words, kinds=tuple(self.kinds))


class Threat(_Section):
    """The threat model of a recipe; a modality left out is not attacked."""

    image: ImageBudget | None = None
    text: TextBudget | None = None
    target: Annotated[Target, Field(description="who is attacked in retrieval")] = "both"

    def build(self) -> ThreatModel:
        """Return the value object that attacks take."""
        budgets: dict[str, Any] = {}
        if self.image is not None:
            budgets["image"] = self.image.build()
        if self.text is not None:
            budgets["text"] = self.text.build()
        return ThreatModel(target=self.target, **budgets)


def _each(budget: object) -> object:
    """Read `{eps: [0, 1/255]}` as `[{eps: 0}, {eps: 1/255}]`, and one budget as a list of it."""
    if budget is None or isinstance(budget, list):
        return budget
    if isinstance(budget, dict):
        for name, value in budget.items():
            nested = isinstance(value, list) and bool(value) and isinstance(value[0], list)
            if isinstance(value, list) and (name in _LISTED or (name == "patch" and nested)):
                return [{**budget, name: one} for one in value]
    return [budget]


_LISTED = ("eps", "l2", "elements", "words")
"""Numbers of budgets, of which a recipe may give several."""


def _each_of(budgets: object) -> object:
    return {name: _each(budget) for name, budget in budgets.items()} if isinstance(budgets, dict) else budgets


class EvaluateThreat(_Section):
    """The threat model of an evaluation, of images and texts or of the modalities of samples; lists give a curve."""

    image: Annotated[list[ImageBudget] | None, Field(min_length=1), BeforeValidator(_each)] = None
    text: Annotated[list[TextBudget] | None, Field(min_length=1), BeforeValidator(_each)] = None
    target: Annotated[Target, Field(description="who is attacked in retrieval")] = "both"
    modalities: Annotated[
        dict[str, Annotated[list[SampleBudget], Field(min_length=1)]],
        BeforeValidator(_each_of),
        Field(description="of samples: {accelerometer: {eps: 0.02}, ...}"),
    ] = Field(default_factory=dict)

    def build(self) -> list[ThreatModel]:
        """Return the value objects that attacks take: every combination of the budgets."""
        given: dict[str, Sequence[Any]] = dict(self.modalities)
        given |= {} if self.image is None else {"image": self.image}
        given |= {} if self.text is None else {"text": self.text}
        if not given:
            return []
        built = {name: [budget.build() for budget in budgets] for name, budgets in given.items()}
        return threats_over(ThreatModel(target=self.target), built)


class Data(_Section):
    """A data set by its name in the table, the split, and the data set's own options."""

    name: Annotated[str, Field(description="`crossguard list datasets`")]
    split: Annotated[str | None, Field(description="default: by use, else what a file's name tells, else `test`")] = (
        None
    )
    options: Options = Field(default_factory=dict)

    def completed(self, other: "Data") -> "Data":
        """Return these data with the options of others where both name the same data set; own options win."""
        if self.name != other.name:
            return self
        return self.model_copy(update={"options": {**other.options, **self.options}})


def _of(split: str) -> Callable[[Any], Any]:
    """Return what names the split of data that are used for one thing, where the recipe does not."""

    def named(data: Any) -> Any:
        if isinstance(data, dict) and data.get("split") is None:
            return {**data, "split": split}
        return data

    return named


TrainingData = Annotated[Data, BeforeValidator(_of("train"))]
ValidationData = Annotated[Data, BeforeValidator(_of("val"))]


class Attack(_Section):
    """An attack by its name in the table, and its own options."""

    name: Annotated[str, Field(description="`crossguard list attacks`")]
    options: Options = Field(default_factory=dict)


class _Recipe(_Section):
    run: Annotated[Place, Field(description="run folder; an interrupted run in it resumes")]
    seed: Seed = 0
    device: Annotated[str | None, Field(description="torch device; default: a GPU if there is one")] = None
    max_samples: Annotated[Positive | None, Field(description="take only the first so many images or samples")] = None


class Checkpoint(_Section):
    """A model, and where the parts come from that its files lack."""

    source: Annotated[Place, Field(description="shipped name, folder, file of weights, or hub id")]
    base: Annotated[Place | None, Field(description="the model it was made from, for what is missing")] = None
    tokenizer: Annotated[Place | None, Field(description="a folder, a hub id, or clip")] = None
    preprocessing: Annotated[Place | None, Field(description="a folder, a hub id, or clip")] = None


def _checkpoint(value: object) -> object:
    """Read `fare2: FOLDER` as `fare2: {source: FOLDER}`."""
    return {"source": value} if isinstance(value, str) else value


class EvaluateRecipe(_Recipe):
    """One model on one task, clean and robust."""

    verb: Literal["evaluate"]
    task: Annotated[str, Field(description="`crossguard list tasks`")] = "retrieval"
    options: Annotated[Options, Field(description="the task's own settings, as `rerank` of retrieval")] = Field(
        default_factory=dict
    )
    model: Annotated[Place, Field(description="shipped name, folder, or hub id")]
    models: Annotated[
        dict[str, Annotated[Checkpoint, BeforeValidator(_checkpoint)]],
        Field(description="further models, each a row by its name here: {mat: FOLDER}"),
    ] = Field(default_factory=dict)
    data: Data
    attack: Attack | None = None
    attacks: Annotated[list[Attack], Field(description="several attacks, each a row of one table")] = Field(
        default_factory=list
    )
    threat: EvaluateThreat = Field(default_factory=EvaluateThreat)
    probe: Annotated[
        Count, Field(description="warn if `adaptive` does far better on the first so many images; 0: no")
    ] = 0
    save_to: Annotated[Place | None, Field(description="new folder for adversarial pictures and texts")] = None
    modalities: Annotated[bool, Field(description="also attack each modality alone")] = True
    batch_size: Annotated[Positive | None, Field(description="attacked together; default: the task's")] = None


class TableRecipe(_Recipe):
    """Several models on several data sets under one attack at several budgets: one table."""

    verb: Literal["table"]
    task: Annotated[str, Field(description="one of classes of pictures")] = "zero-shot"
    options: Annotated[Options, Field(description="the task's own settings, as `half_first`")] = Field(
        default_factory=dict
    )
    models: Annotated[
        dict[str, Annotated[Checkpoint, BeforeValidator(_checkpoint)]],
        Field(min_length=1, description="a row each: `fare2: FOLDER`, or `fare2: {source: FILE, base: FOLDER}`"),
    ]
    sets: Annotated[dict[str, Data], Field(min_length=1, description="columns, by their names in the table")]
    attack: Attack = Attack(name="auto-attack")
    eps: Annotated[
        list[Annotated[Number, Field(gt=0, le=1)]],
        Field(min_length=1, description="L-inf budgets of the picture, each a part of the table"),
    ] = [2 / 255, 4 / 255]
    text: Annotated[TextBudget | None, Field(description="the names of classes are attacked too")] = None
    max_samples: Annotated[
        Positive | None, Field(description="pictures of each set, drawn at random by class with `seed`; null: all")
    ] = 1000
    batch_size: Annotated[Positive | None, Field(description="attacked together; default: the task's")] = None


class TrainRecipe(_Recipe):
    """Harden (or merely fine-tune) one model."""

    verb: Literal["train"]
    model: Annotated[Place, Field(description="shipped name, folder, or hub id")]
    data: TrainingData
    new_originals: Annotated[
        TrainingData | None, Field(description="other originals, for options.links=new-originals")
    ] = None
    validation: ValidationData | None = None
    defence: Annotated[str, Field(description="`crossguard list defences`")]
    threat: Threat = Field(default_factory=Threat)
    steps: Positive
    batch_size: Annotated[int, Field(ge=2, le=_MOST)] = 64
    learning_rate: Annotated[Number, Field(gt=0)] = 1e-5
    weight_decay: Annotated[Number, Field(ge=0)] = 1e-4
    options: Annotated[Options, Field(description="the trainer's other settings")] = Field(default_factory=dict)


class AblatedTraining(_Section):
    """How a model is trained on ablated inputs before it is certified."""

    data: Annotated[
        TrainingData,
        Field(description="options that it does not name are those of the certified data, where the name is equal"),
    ]
    steps: Positive
    keep: Annotated[
        dict[str, Count] | None, Field(description="elements kept in training; default: as the certificate")
    ] = None
    augment: Annotated[
        Literal["turn-sensors", "flip-and-tint"] | None,
        Field(description="turn all sensors' axes by a small rotation; or mirror images and change their colours"),
    ] = None
    model: Annotated[dict[str, Any], Field(description="the untrained model's settings: encoder, start, width")] = (
        Field(default_factory=dict)
    )
    for_baseline: Annotated[
        bool, Field(description="train the baseline a model of its own, on joint sub-samples; else it takes this one")
    ] = True
    options: Annotated[Options, Field(description="batch_size, lr, weight_decay, ...")] = Field(default_factory=dict)


Radius = Count | Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Elements, or an L2 distance of a modality under noise."""


class Curve(_Section):
    """Radius vectors that a curve is drawn along: 0, 1, ... `steps` times `direction`, or a list of them."""

    direction: Annotated[
        dict[str, Radius], Field(description="radii of one step: {rgb: 1, depth: 2} is r_2 = 2 r_1")
    ] = Field(default_factory=dict)
    steps: Annotated[Count, Field(description="steps of the curve, after the first at radius 0")] = 0
    vectors: Annotated[list[dict[str, Radius]], Field(description="the radii one by one")] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_of_both(self) -> "Curve":
        if bool(self.vectors) == bool(self.direction):
            raise ValueError("expected `direction` and `steps`, or `vectors`")
        return self

    def build(self) -> list[dict[str, int | float]]:
        """Return the radius vectors."""
        if self.vectors:
            return [dict(vector) for vector in self.vectors]
        return [{m: step * r for m, r in self.direction.items()} for step in range(self.steps + 1)]


class Maps(_Section):
    """Pictures of a segmentation: truth, prediction, and what is certified."""

    radii: Annotated[dict[str, Radius], Field(description="the radii that certified pixels withstand")]
    shown: Annotated[Positive, Field(description="images that the report shows; the run folder has all")] = 4


class SparseBeside(_Section):
    """The sparse attack on the smoothed model, drawn beside the certified curve: the truth lies between the two."""

    vectors: Annotated[
        list[dict[str, Count]], Field(description="the radii attacked, of the curve's; default: all of them")
    ] = Field(default_factory=list)
    draws: Annotated[Positive, Field(description="sub-samples per gradient")] = 50
    transfer: Annotated[bool, Field(description="also attack the base model, and keep what hurts more")] = True
    options: Annotated[Options, Field(description="placement, rounds, steps, ... of the sparse attack")] = Field(
        default_factory=dict
    )
    batch_size: Annotated[Positive, Field(description="samples attacked together")] = 32


class Gallery(_Section):
    """A two-tower model as a choice among a fixed gallery, patch by patch and word by word."""

    of: Annotated[
        Literal["concepts", "classes", "images", "texts"],
        Field(
            description="what is chosen: concepts of pairs, each asked by a picture and a caption; classes of labelled "
            "images by their names (zero-shot); all images, by texts, or all texts, by images (retrieval, R@K)"
        ),
    ] = "concepts"
    classes: Annotated[int, Field(ge=2, description="concepts: entries of the gallery, and samples asked")] = 24
    modalities: Annotated[
        list[Literal["image", "text"]], Field(min_length=1, description="concepts: what is asked with")
    ] = ["image", "text"]
    most: Annotated[Positive, Field(description="retrieval: K of R@K")] = 1

    @property
    def retrieves(self) -> bool:
        """Whether it is retrieval, with several right entries and K answers."""
        return self.of in ("images", "texts")

    @model_validator(mode="after")
    def _fits(self) -> "Gallery":
        if not self.retrieves and self.most != 1:
            raise ValueError("expected `most` with retrieval alone, of: images or of: texts")
        if self.of != "concepts" and {"classes", "modalities"} & self.model_fields_set:
            raise ValueError("expected `classes` and `modalities` with of: concepts alone")
        return self


class CertifyRecipe(_Recipe):
    """Certify a classifier or a segmenter by independent sub-sampling of every modality."""

    verb: Literal["certify"]
    model: Annotated[Place, Field(description="a folder, or a family of the table together with `train`")]
    train: AblatedTraining | None = None
    gallery: Annotated[
        Gallery | None,
        Field(description="a two-tower model (CLIP, SigLIP, ALBEF, BLIP) chooses among concepts, classes or pairs"),
    ] = None
    data: Data
    keep: Annotated[dict[str, Count], Field(description="elements kept of each modality; 0 leaves one out")] = Field(
        default_factory=dict
    )
    noise: Annotated[
        dict[str, Annotated[Number, Field(gt=0)]],
        Field(description="sigma of modalities under Gaussian noise instead, whose radii are L2 distances"),
    ] = Field(default_factory=dict)
    lengths: Annotated[
        dict[str, str],
        Field(
            description="samples of different lengths: {sound: sound_length} names an array of the data that says how "
            "many elements of `sound` each sample has; those behind are padding"
        ),
    ] = Field(default_factory=dict)
    units: Annotated[
        dict[str, str], Field(description="what an element is called: {video: frame}; default: pixel, patch, element")
    ] = Field(default_factory=dict)
    design: Annotated[
        Drawing, Field(description="random draws, or a published design that certifies without any chance of error")
    ] = "random"
    beside: Annotated[
        list[Drawing], Field(description="other designs that are drawn into the same curve, by the same model")
    ] = Field(default_factory=list)
    draws: Annotated[
        Positive, Field(description="N; the most of a fixed design; of a product as many as there are tuples")
    ] = 1000
    draw_seed: Annotated[
        Seed | None, Field(description="of the sub-samples, for experiments; default: a secret one")
    ] = None
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="of the base model, which the certificates are about; bfloat16 is fast on GPUs"),
    ] = "float32"
    alpha: Annotated[Number, Field(gt=0, lt=0.5)] = 0.001
    kind: Annotated[
        EditKind | dict[str, EditKind], Field(description="the attacker's kind of edit, one for all or by modality")
    ] = "substitution"
    radii: Annotated[
        dict[str, Radius] | None,
        Field(description="largest radius of each modality on the grid; default: the radii of the curve"),
    ] = None
    curve: Curve | None = None
    early: Annotated[
        dict[str, Radius] | None,
        Field(description="decide at these radii alone, with as few draws as each sample takes, at most `draws`"),
    ] = None
    baseline: Annotated[
        bool, Field(description="also certify by sub-sampling all modalities together (randomized ablation)")
    ] = False
    bound: Annotated[
        Literal["both", "majority", "gap"],
        Field(description="classification: what is taken of the other labels; gap is better where votes spread"),
    ] = "majority"
    correction: Annotated[
        Literal["holm", "bonferroni"],
        Field(description="segmentation: alpha for each radius vector alone, or for all at once"),
    ] = "bonferroni"
    positive: Annotated[
        str | None, Field(description="segmentation: class of recall, precision, F-score and IoU; default: the second")
    ] = None
    collective: Annotated[
        bool,
        Field(description="segmentation, published design: also bound how many pixels one attack leaves right at once"),
    ] = False
    maps: Maps | None = None
    attack: Annotated[SparseBeside | None, Field(description="sparse attacks on the curve; default: none")] = None
    batch_size: Annotated[Positive | None, Field(description="sub-samples per forward pass")] = None

    @model_validator(mode="after")
    def _some_radii(self) -> "CertifyRecipe":
        if self.gallery is not None and self.train is not None:
            raise ValueError("expected no `train` with `gallery`, whose model is loaded")
        if self.early is not None:
            beside = {
                "radii": self.radii,
                "curve": self.curve,
                "beside": self.beside,
                "baseline": self.baseline,
                "attack": self.attack,
                "maps": self.maps,
                "lengths": self.lengths,
                "collective": self.collective,
                "gallery of images or texts": self.gallery is not None and self.gallery.retrieves,
            }
            given = [name for name, value in beside.items() if value]
            if given or self.design != "random":
                raise ValueError(f"expected `early` without {', '.join(given) or 'a published `design`'}")
        elif self.radii is None and self.curve is None:
            raise ValueError("expected `radii`, `curve`, or both, or `early`")
        if self.collective and (self.curve is None or self.design == "random"):
            raise ValueError("expected a `curve` and a published `design` with `collective`")
        if self.lengths and (self.baseline or self.attack is not None or self.design != "random" or self.beside):
            raise ValueError("expected no `baseline`, `attack` or published design with `lengths`")
        if not self.keep and not self.noise:
            raise ValueError("expected `keep`, `noise`, or both")
        if self.noise and (self.design != "random" or self.beside):
            raise ValueError("expected no published `design` and none `beside` with `noise`, which needs random draws")
        if self.noise and self.bound == "gap":
            raise ValueError("expected bound 'majority' or 'both' with `noise`, beside which 'gap' is not proven")
        if len({self.design, *self.beside}) <= len(self.beside):
            raise ValueError("expected each design once in `design` and `beside`")
        if self.beside and self.curve is None:
            raise ValueError("expected a `curve` with `beside`")
        if self.attack is not None:
            known = [] if self.curve is None else self.curve.build()
            if not known or any(vector not in known for vector in self.attack.vectors):
                raise ValueError("expected a `curve` with `attack`, and `attack.vectors` of that curve's radii")
            if self.noise or self.design != "random":
                raise ValueError("expected no `noise` and no published `design` with `attack`")
            kinds = {self.kind} if isinstance(self.kind, str) else set(self.kind.values())
            if kinds - {"substitution", "edit"}:
                raise ValueError("expected kind 'substitution' or 'edit' with `attack`, which substitutes elements")
        return self


class Originals(_Section):
    """A part of the data that is augmented, so that the rest can be a source (`own-texts`, `own-images`)."""

    texts_per_image: Annotated[Positive | None, Field(description="texts that every image keeps; default: all")] = None
    images_per_text: Annotated[Positive | None, Field(description="images that every text keeps; default: all")] = None


class AugmentationSource(_Section):
    """An augmentation source by its name in the table, and its own options."""

    name: Annotated[str, Field(description="a name of `crossguard.augment.AUGMENTATIONS`")]
    options: Options = Field(default_factory=dict)


class AugmentRecipe(_Recipe):
    """Make one-to-many pairs once, offline, and measure them."""

    verb: Literal["augment"]
    data: TrainingData
    originals: Originals = Field(default_factory=Originals)
    sources: Annotated[list[AugmentationSource], Field(min_length=1)]
    per_sample: Annotated[Positive, Field(description="the most samples of a source per item")] = 4
    model: Annotated[Place | None, Field(description="reference for the measures: shipped name, folder, or hub id")] = (
        None
    )
    min_alignment: Annotated[Number | None, Field(ge=-1, le=1, description="leave out samples below, a cosine")] = None
    batch_size: Positive = 64


def _parts(value: object) -> object:
    """Read `sga: [joint]` as `sga: {parts: [joint]}`."""
    return {"parts": value} if isinstance(value, list) else value


class JudgingAttack(_Section):
    """An attack of a table, by its name in the table of attacks unless `attack` says another, and its own options."""

    parts: Annotated[
        list[Literal["image", "text", "joint"]],
        Field(min_length=1, description="parts of the threat that it is run under"),
    ]
    attack: Annotated[str | None, Field(description="`crossguard list attacks`; default: its own name here")] = None
    options: Options = Field(default_factory=dict)
    max_samples: Annotated[
        Positive | None, Field(description="images that this attack judges on, evenly spread; default: all that judge")
    ] = None

    def named(self, name: str) -> Attack:
        """Return the attack that has this name in a table of a study."""
        return Attack(name=self.attack or name, options=self.options)


class Primary(_Section):
    """The figure by which a study compares, fixed before it begins: the mean of TR@K and IR@K under one attack."""

    attack: Annotated[str, Field(description="its name in the tables")]
    part: Literal["image", "text", "joint"] = "joint"
    rank: Annotated[Literal[1, 5, 10], Field(description="K of R@K")] = 1


class Judged(_Section):
    """A table of a study: how its arms are judged, and what its figure shows."""

    title: str
    attacks: Annotated[
        dict[str, Annotated[JudgingAttack, BeforeValidator(_parts)]],
        Field(min_length=1, description="`sga: [joint]`, or `letters: {attack: ..., options: ..., parts: [text]}`"),
    ]
    figure: Annotated[
        Literal["samples", "measures"] | None,
        Field(description="robustness against `per_sample`, or against the measures of the arms' sources"),
    ] = None


def _source(value: object) -> object:
    """Read `eda` as `{name: eda}`."""
    return {"name": value} if isinstance(value, str) else value


class StudyArm(_Section):
    """One way to train (or to leave the model as it came); it is trained once per seed."""

    tables: Annotated[list[str], Field(min_length=1, description="the tables that it is a row of")]
    defence: Annotated[str | None, Field(description="`crossguard list defences`; null leaves the model as it is")] = (
        None
    )
    links: Annotated[
        Literal["originals", "extra-pairs", "every-pair", "one-to-many", "new-originals"] | None,
        Field(description="how more samples are used; default: as the defence has it"),
    ] = None
    sources: Annotated[
        list[Annotated[AugmentationSource, BeforeValidator(_source)]],
        Field(description="augmentation sources that are added to the originals: names, or {name, options}"),
    ] = Field(default_factory=list)
    per_sample: Annotated[Positive, Field(description="the most samples of each source per item")] = 4
    options: Annotated[Options, Field(description="the trainer's other settings")] = Field(default_factory=dict)


class StudyRecipe(_Section):
    """Many trainings at equal compute, each judged by several attacks, over several seeds."""

    verb: Literal["study"]
    run: Annotated[Place, Field(description="folder of the study; an interrupted one in it goes on")]
    seed: Annotated[Seed, Field(description="of the attacks that judge")] = 0
    device: Annotated[str | None, Field(description="torch device; default: a GPU if there is one")] = None
    max_samples: Annotated[Positive | None, Field(description="images that judge, evenly spread over the split")] = None
    model: Annotated[Place, Field(description="shipped name, folder, or hub id")]
    data: TrainingData
    test: Annotated[Data | None, Field(description="what judges")] = None
    held_out: Annotated[
        Positive | None,
        Field(description="in place of `test`: so many images of `data`, evenly spread, judge and are not trained on"),
    ] = None
    judged_texts: Annotated[
        Positive | None, Field(description="texts of each image that judge, drawn with `seed`; default: all")
    ] = None
    originals: Annotated[
        Positive | None, Field(description="images that are trained on, drawn anew for each seed; default: all")
    ] = None
    new_originals: Annotated[
        Positive | None, Field(description="images that links: new-originals trains on, the originals among them")
    ] = None
    threat: Threat
    seeds: Annotated[list[Seed], Field(min_length=1)]
    reference: Annotated[str, Field(description="the arm whose training every other one may cost as much as")]
    steps: Annotated[Positive, Field(description="training steps of the reference")]
    batch_size: Annotated[int, Field(ge=2, le=_MOST)] = 64
    learning_rate: Annotated[Number, Field(gt=0)] = 1e-5
    options: Annotated[
        Options, Field(description="the trainer's other settings for all arms, where an arm has none of its own")
    ] = Field(default_factory=dict)
    primary: Annotated[Primary | None, Field(description="the figure by which arms are compared")] = None
    threads: Annotated[
        Positive, Field(description="of PyTorch on a CPU, on which rounding depends; start more processes instead")
    ] = 1
    tables: Annotated[dict[str, Judged], Field(min_length=1)]
    arms: Annotated[dict[str, StudyArm], Field(min_length=1, description="in the order of the tables' rows")]
    only: Annotated[
        list[str], Field(description="arms that are carried out now, in this order; the others may follow later")
    ] = Field(default_factory=list)

    @model_validator(mode="after")
    def _joined(self) -> "StudyRecipe":
        if self.reference not in self.arms or self.arms[self.reference].defence is None:
            raise ValueError(f"reference: expected a trained arm, but got {self.reference!r}")
        for name, arm in self.arms.items():
            if unknown := sorted(set(arm.tables) - set(self.tables)):
                raise ValueError(f"arms.{name}.tables: expected names among {sorted(self.tables)}, but got {unknown}")
        if unknown := sorted(set(self.only) - set(self.arms)):
            raise ValueError(f"only: expected names among {sorted(self.arms)}, but got {unknown}")
        known: dict[str, JudgingAttack] = {}
        for name, table in self.tables.items():
            for attack, judging in table.attacks.items():
                alike = known.setdefault(attack, judging).model_copy(update={"parts": judging.parts})
                if alike != judging:
                    raise ValueError(f"tables.{name}.attacks.{attack}: expected the same attack in all tables")
        self._of_data()
        if self.primary is not None:
            named = [table.attacks.get(self.primary.attack) for table in self.tables.values()]
            if not any(judging is not None and self.primary.part in judging.parts for judging in named):
                raise ValueError(
                    f"primary: expected an attack and a part of it that a table has, but got {self.primary.attack!r} "
                    f"and {self.primary.part!r}"
                )
        return self

    def _of_data(self) -> None:
        if (self.test is None) == (self.held_out is None):
            raise ValueError(
                f"expected one of `test` and `held_out`, but got {'none' if self.test is None else 'both'}"
            )
        if self.new_originals is not None and (self.originals is None or self.new_originals <= self.originals):
            what = "`originals` beside them" if self.originals is None else f"more than {self.originals}"
            raise ValueError(f"new_originals: expected {what}, but got {self.new_originals}")
        for name, arm in self.arms.items():
            if arm.links == "new-originals" and self.new_originals is None:
                raise ValueError(f"arms.{name}.links: expected `new_originals` with 'new-originals', but got none")

    @property
    def attacks(self) -> dict[str, Attack]:
        """The attacks of all tables, by their names there."""
        return {name: judging.named(name) for name, judging in self.judging.items()}

    @property
    def judging(self) -> dict[str, JudgingAttack]:
        """The same as they stand there."""
        return {name: judging for table in self.tables.values() for name, judging in table.attacks.items()}

    @property
    def measured(self) -> bool:
        """Whether a figure shows the measures of sources."""
        return any(table.figure == "measures" for table in self.tables.values())


AnyRecipe = EvaluateRecipe | TableRecipe | TrainRecipe | CertifyRecipe | AugmentRecipe | StudyRecipe
Recipe = Annotated[AnyRecipe, Field(discriminator="verb")]
