"""The number of threads that a study computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from crossguard.recipes.schema import StudyRecipe


@contextmanager
def given_threads(recipe: StudyRecipe, device: str) -> Iterator[None]:
    """Compute with the recipe's threads meanwhile.

    Sums are split among threads, so that rounding, and with it a training, depends on how many there are. The study's
    own number makes it the same on machines with few cores and many; more cores are used by more processes.
    """
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(recipe.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
