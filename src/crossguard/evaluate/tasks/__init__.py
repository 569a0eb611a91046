"""The tasks that `evaluate` knows, by name."""

from inspect import isabstract
from typing import Any

from crossguard.checks import WrongKind
from crossguard.data import (
    LabelledImages,
    MultiModalSamples,
    OneToManyPairs,
    PictureQuestions,
    ReferringExpressions,
    as_pairs,
)
from crossguard.evaluate.task import Task
from crossguard.evaluate.tasks.answering import Answering
from crossguard.evaluate.tasks.captioning import Captioning
from crossguard.evaluate.tasks.grounding import Grounding
from crossguard.evaluate.tasks.retrieval import Retrieval
from crossguard.evaluate.tasks.samples import Classification, Segmentation
from crossguard.evaluate.tasks.zero_shot import ZeroShot
from crossguard.models import Captioner, VisionLanguageModel
from crossguard.table import Table

_DATA = (OneToManyPairs, LabelledImages, MultiModalSamples, ReferringExpressions, PictureQuestions)
TASKS = Table[type[Task]]("task", (Retrieval, ZeroShot, Classification, Segmentation, Grounding, Captioning, Answering))


def register_task(task: type[Task]) -> None:
    """Add a task of your own to the table, so that `evaluate`, recipes and the command line can name it.

    Args:
        task: a frozen dataclass that derives from `Task` (or `SampleTask`), with `name`, `heading`, `headline` and
            whatever is abstract there; its further fields are its options.

    Raises:
        ValueError: no such class, or a name of the package's own.
    """
    if not (isinstance(task, type) and issubclass(task, Task)) or isabstract(task):
        raise ValueError(f"Expected a subclass of crossguard.evaluate.Task with all of its methods, but got {task!r}.")
    TASKS.register(task)


def told_task(model: object, data: object) -> tuple[type[Task], Any]:
    """Return the task that one would ask such a model about such data, and the data: pairs in any form as pairs.

    Raises:
        WrongKind: there is none.
        ValueError: data for a model of pictures and texts that are no pairs in any form (see `as_pairs`).
    """
    known = next((task for task in TASKS.values() if task.fits(model, data)), None)
    if known is None and isinstance(model, VisionLanguageModel | Captioner) and not isinstance(data, _DATA):
        data = as_pairs(data)
        known = next((task for task in TASKS.values() if task.fits(model, data)), None)
    if known is not None:
        return known, data
    raise WrongKind(
        f"Expected a model and data that a task fits ({', '.join(TASKS)}), but got {type(model).__name__} and "
        f"{type(data).__name__}. Labelled images in other forms are read by crossguard.as_images, samples by "
        "as_samples; or name the `task`."
    )
