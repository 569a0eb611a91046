"""`TrainOptions`: how a training is done, every option documented and checked once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from accelerate.utils import LoggerType

from crossguard.attacks.options import check_step_rule
from crossguard.attacks.sources import SourceLike
from crossguard.checks import check_choice, check_options, check_range, check_whole, plain
from crossguard.training.inner import Order
from crossguard.training.links import Links

InnerStart = Literal["uniform", "clean", "warm"]
Positives = Literal["summed", "drawn"]
Keep = Literal["last", "best"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of `train`, which takes them as keywords; recipes give them under `options`.

    Args:
        batch_size: images per step (and process), at least 2.
        learning_rate: the largest; reached after the warm-up, then a cosine to 0.
        weight_decay: of AdamW, not for biases and norms.
        warmup: share of the steps, in [0, 1).
        clip_norm: largest gradient norm.
        clean_weight: share in [0, 1) of the plain contrastive loss of the clean pairs, mixed into the defence's loss.
        links: which pairs are trained on and how they are linked: "originals", "extra-pairs", "every-pair",
            "one-to-many" or "new-originals" (see `training.links.arrange`); default: all pairs, as the defence has it.
        texts_per_image: texts that each anchor image brings; for one-to-many defences (default 2), else 1.
        images_per_text: images that a group of a step has; more than 1 for one-to-many defences alone. Further images
            of a text are anchors of other steps all the same.
        positives: for one-to-many defences: "summed" makes every true pair a target with equal shares, "drawn" one per
            image and text at every step, the others being neither target nor negative.
        pgd_steps: gradient steps on the images.
        pgd_step: "co-attack" (1.25 eps / steps), "sga" (0.5/255), or a size in [0, 1].
        start: where images start: "uniform" in [-eps, eps], "clean", or "warm", from what was found on an image's last
            visit (first "uniform"; one byte per pixel value of the data set is kept).
        order: "text-first" (MAT), "image-first", "alternating" (texts, images, texts again) or "independent".
        text_tries: substitutions tried per text and word.
        source: candidate source of substitutions (see `attacks.make_source`); default: the defence's own.
        validation_attack: a name of the table of attacks, run on the validation pairs within `threat`.
        validate_every: steps between validations; default: at the end alone.
        keep: "last" returns the weights of the last step, "best" those that validation found best: by the mean of
            robust TR@1 and IR@1 (clean ones where nothing is attacked).
        checkpoint_every: steps between checkpoints.
        log_every: steps between rows, and between updates of what is shown; 0 measures nothing on the way.
        tracker: logs to a tracker of Accelerate's too, by its name: "tensorboard" (into the run folder), "wandb",
            "trackio", "mlflow", ...
        workers: processes that decode ahead where pictures do not fit into memory; default: up to 4.
        precision: "auto" is bfloat16 where a GPU has it, else float32.
        chunk_size: the most images, texts or pairs in one pass, so that large batches fit; the gradient is that of the
            whole batch, for one more forward pass (see `StepLoss`).
        queue_size: for fusion models: above 0, the contrastive loss compares with a momentum copy of the model and
            queues of so many of its embeddings (see `models.momentum`).
        momentum: how much that copy keeps of itself per step.
        soft_targets: share of the copy's belief in the contrastive targets, in [0, 1].
        ema: decay of a moving average of the weights, in [0, 1); above 0 the average is validated and returned.
        lora: trains low-rank adapters in place of weights: `rank`, `alpha`, `dropout`, `layers` (see `lora.Lora`). The
            returned model has them merged into plain weights.
        freeze: name patterns (`*`, `?`) of parameters that are not trained.
        compile: compile the image encoder (`torch.compile`); pays on GPUs, after a minute or more.
        recompute: keep only the inputs of each layer, and compute again what the way back needs (activation
            checkpointing); the gradient is the same.

    Raises:
        ValueError: an option out of range.
    """

    batch_size: int = 64
    learning_rate: float = 1e-5
    weight_decay: float = 1e-4
    warmup: float = 0.1
    clip_norm: float = 1.0
    clean_weight: float = 0.0
    links: str | None = None
    texts_per_image: int | None = None
    images_per_text: int = 1
    positives: str = "summed"
    pgd_steps: int = 2
    pgd_step: str | float = "co-attack"
    start: str = "uniform"
    order: str = "text-first"
    text_tries: int = 8
    source: SourceLike | None = None
    validation_attack: str = "co-attack"
    validate_every: int | None = None
    keep: str = "last"
    checkpoint_every: int = 500
    log_every: int = 10
    tracker: str | None = None
    workers: int | None = None
    precision: str = "auto"
    chunk_size: int | None = None
    queue_size: int = 0
    momentum: float = 0.995
    soft_targets: float = 0.4
    ema: float = 0.0
    lora: Mapping[str, Any] | None = None
    freeze: str | Sequence[str] = ()
    compile: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        for name in ("pgd_steps", "text_tries", "checkpoint_every"):
            check_whole(getattr(self, name), name, least=1)
        for name in ("chunk_size", "validate_every"):
            if getattr(self, name) is not None:
                check_whole(getattr(self, name), name, least=1)
        check_whole(self.log_every, "log_every", least=0)
        for name in ("learning_rate", "clip_norm"):
            check_range(getattr(self, name), name, below=math.inf, zero=False)
        check_range(self.weight_decay, "weight_decay", below=math.inf)
        for name in ("warmup", "clean_weight", "ema"):
            check_range(getattr(self, name), name, below=1.0)
        check_step_rule(self.pgd_step)
        choices: dict[str, Any] = {"start": InnerStart, "order": Order, "positives": Positives, "keep": Keep}
        choices |= {"links": Links, "precision": Precision}
        for name, kind in choices.items():
            given = getattr(self, name)
            if given is not None or name != "links":
                check_choice(given, get_args(kind), name)
        if self.tracker is not None:
            check_choice(self.tracker, sorted({str(kind) for kind in LoggerType} - {"all"}), "tracker")

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "TrainOptions":
        """Return options given by name.

        Raises:
            ValueError: an unknown name (the nearest is named), a value of another type or out of range.
        """
        check_options(cls, given, what="`train`")
        return cls(**{name: plain(value) for name, value in given.items()})
