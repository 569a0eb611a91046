"""`PictureQuestions`: questions about pictures with the answers that people gave."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Int64
from PIL import Image

from crossguard.checks import check_choice, some
from crossguard.data.pictures import Picture

Scoring = Literal["vqa", "yes-no", "choice"]
SCORINGS: tuple[Scoring, ...] = ("vqa", "yes-no", "choice")


@dataclass(frozen=True)
class PictureQuestions:
    """Questions about pictures, each with the answers that count as right.

    Args:
        name: name of the data set.
        split: name of the split.
        images: the pictures.
        questions: as they are put to a model.
        about: int64 [questions], which picture each is about.
        answers: one or more for each question, as often as people gave them.
        scoring: "vqa" (ten people's answers, see `vqa_accuracy`), "yes-no", or "choice" (a letter).
        notes: what the loader saw and a reader of the results should know.

    Raises:
        ValueError: no questions, blank ones, questions without answers, pictures out of range, lengths that differ.
    """

    name: str
    split: str
    images: Sequence[Picture]
    questions: Sequence[str]
    about: Int64[np.ndarray, " questions"]
    answers: Sequence[Sequence[str]]
    scoring: Scoring = "vqa"
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("images", "questions", "notes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "answers", tuple(tuple(own) for own in self.answers))
        about = np.array(self.about, dtype=np.int64)
        about.setflags(write=False)
        object.__setattr__(self, "about", about)
        check_choice(self.scoring, SCORINGS, "scoring")
        count = len(self.questions)
        if not count or len(self.answers) != count or about.shape != (count,):
            raise ValueError(
                f"Expected questions with answers and a picture each, but got {count} questions, {len(self.answers)} "
                f"lists of answers and pictures of shape {list(about.shape)}."
            )
        if about.min() < 0 or about.max() >= len(self.images):
            raise ValueError(f"Expected pictures in [0, {len(self.images)}), but got {about.min()}..{about.max()}.")
        blank = [place for place, text in enumerate(self.questions) if not text.strip()]
        lost = [place for place, own in enumerate(self.answers) if not any(text.strip() for text in own)]
        if blank or lost:
            raise ValueError(
                f"Expected questions with answers, but {len(blank)} questions are blank ({some(blank) or 'none'}) and "
                f"{len(lost)} have no answer ({some(lost) or 'none'})."
            )

    def __len__(self) -> int:
        return len(self.questions)

    def image(self, question: int) -> Image.Image:
        """Decode the picture of a question to an upright RGB `PIL.Image`."""
        return self.images[int(self.about[question])].load()

    def select(self, questions: Sequence[int] | Int64[np.ndarray, " chosen"]) -> "PictureQuestions":
        """Return the chosen questions, in the order given, with their pictures."""
        chosen = np.asarray(questions, dtype=np.int64)
        used, about = np.unique(self.about[chosen], return_inverse=True)
        return replace(
            self,
            images=tuple(self.images[i] for i in used.tolist()),
            questions=tuple(self.questions[i] for i in chosen.tolist()),
            about=about,
            answers=tuple(self.answers[i] for i in chosen.tolist()),
        )

    def head(self, max_questions: int) -> "PictureQuestions":
        """Return the first `max_questions` questions."""
        return self.select(range(min(max_questions, len(self))))

    def draw(self, max_questions: int, *, seed: int) -> "PictureQuestions":
        """Return `max_questions` questions at random, in their order."""
        if max_questions >= len(self):
            return self
        return self.select(np.sort(np.random.default_rng(seed).choice(len(self), max_questions, replace=False)))
