"""The tasks that `evaluate` knows, by name."""

from inspect import isabstract

from crossguard.checks import WrongKind
from crossguard.evaluate.task import Task
from crossguard.evaluate.tasks.answering import Answering
from crossguard.evaluate.tasks.captioning import Captioning
from crossguard.evaluate.tasks.grounding import Grounding
from crossguard.evaluate.tasks.retrieval import Retrieval
from crossguard.evaluate.tasks.samples import Classification, Segmentation
from crossguard.evaluate.tasks.zero_shot import ZeroShot
from crossguard.table import Table

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


def told_task(model: object, data: object) -> type[Task]:
    """Return the task that one would ask such a model about such data.

    Raises:
        WrongKind: there is none.
    """
    for task in TASKS.values():
        if task.fits(model, data):
            return task
    raise WrongKind(
        f"Expected a model and data that a task fits ({', '.join(TASKS)}), but got {type(model).__name__} and "
        f"{type(data).__name__}. Pairs in other forms are read by crossguard.as_pairs, labelled images by as_images, "
        "samples by as_samples; or name the `task`."
    )
