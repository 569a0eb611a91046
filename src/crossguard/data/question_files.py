"""Questions about pictures in the files that VQAv2, TextVQA, POPE and ScienceQA were released in."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crossguard.checks import some, visible
from crossguard.data.pictures import Picture
from crossguard.data.questions import PictureQuestions, Scoring

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BRIEFLY = "Answer the question using a single word or phrase."
BY_LETTER = "Answer with the option's letter from the given choices directly."
"""What LLaVA-1.5 adds to questions of benchmarks."""


@dataclass
class _Rows:
    """Questions as they are read; pictures that are not there are told together."""

    source: Path
    images: dict[str, int] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    about: list[int] = field(default_factory=list)
    answers: list[list[str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def add(self, picture: Path, question: str, answers: Iterable[str], *, hint: str) -> None:
        key = picture.name if picture.name != "image.png" else f"{picture.parent.name}.png"
        if key not in self.images:
            self.images[key] = len(self.pictures)
            self.pictures.append(Picture(key, picture))
            if not picture.is_file():
                self.lost.append(str(picture))
        self.questions.append(f"{question.strip()}\n{hint}")
        self.about.append(self.images[key])
        self.answers.append(list(answers))

    def build(self, *, name: str, split: str, scoring: Scoring, notes: Iterable[str] = ()) -> PictureQuestions:
        if self.lost:
            raise ValueError(
                f"Expected the pictures that {visible(self.source)} names, but {len(self.lost)} of "
                f"{len(self.pictures)} are missing: {some(self.lost, shown=3)}."
            )
        about = np.array(self.about, dtype=np.int64)
        return PictureQuestions(name, split, self.pictures, self.questions, about, self.answers, scoring, tuple(notes))


def load_vqav2(*, root: Path | str, split: str = "val") -> PictureQuestions:
    """Load VQAv2 (Goyal et al., 2017).

    Args:
        root: the folder with `v2_OpenEnded_mscoco_{split}2014_questions.json`, `v2_mscoco_{split}2014_annotations.json`
            and `{split}2014/COCO_{split}2014_000000000042.jpg`.
        split: "train" or "val"; answers of the test splits are not public.

    Raises:
        ValueError: files that are missing or of another form, questions without answers, missing pictures.
    """
    root = Path(root)
    asked = root / f"v2_OpenEnded_mscoco_{split}2014_questions.json"
    told = root / f"v2_mscoco_{split}2014_annotations.json"
    with _reading(told):
        answers = {row["question_id"]: [str(a["answer"]) for a in row["answers"]] for row in _json(told)["annotations"]}
    rows = _Rows(asked)
    with _reading(asked):
        for row in _json(asked)["questions"]:
            picture = root / f"{split}2014" / f"COCO_{split}2014_{int(row['image_id']):012d}.jpg"
            rows.add(picture, str(row["question"]), answers.get(row["question_id"], ()), hint=BRIEFLY)
    return rows.build(name="vqav2", split=split, scoring="vqa")


def load_textvqa(*, root: Path | str, split: str = "val") -> PictureQuestions:
    """Load TextVQA (Singh et al., 2019).

    Args:
        root: the folder with `TextVQA_0.5.1_{split}.json` and `train_images/` (of val too).
        split: "train" or "val".

    Raises:
        ValueError: as `load_vqav2`.
    """
    root = Path(root)
    path = root / f"TextVQA_0.5.1_{split}.json"
    rows = _Rows(path)
    with _reading(path):
        for row in _json(path)["data"]:
            picture = root / "train_images" / f"{row['image_id']}.jpg"
            rows.add(picture, str(row["question"]), map(str, row.get("answers", ())), hint=BRIEFLY)
    return rows.build(name="textvqa", split=split, scoring="vqa")


def load_pope(*, file: Path | str, root: Path | str) -> PictureQuestions:
    """Load POPE (Li et al., 2023): is there a thing in the picture, yes or no.

    Args:
        file: `coco_pope_random.json`, `..._popular.json` or `..._adversarial.json`: a JSON object a line.
        root: the folder of COCO's `val2014` pictures.

    Raises:
        ValueError: as `load_vqav2`; a label that is neither "yes" nor "no".
    """
    path = Path(file)
    rows = _Rows(path)
    with _reading(path):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                row = json.loads(line)
                if row["label"] not in ("yes", "no"):
                    raise ValueError(f"a label that is neither yes nor no: {row['label']!r}")
                rows.add(Path(root) / row["image"], str(row["text"]), [row["label"]], hint=BRIEFLY)
    return rows.build(name=path.stem, split="test", scoring="yes-no")


def load_scienceqa(*, root: Path | str, split: str = "test") -> PictureQuestions:
    """Load the questions of ScienceQA (Lu et al., 2022) that have a picture; a choice is answered by its letter.

    Args:
        root: the folder with `problems.json` and `{split}/{id}/image.png`.
        split: "train", "val" or "test".

    Raises:
        ValueError: as `load_vqav2`.
    """
    root = Path(root)
    path = root / "problems.json"
    rows, without = _Rows(path), 0
    with _reading(path):
        for number, row in _json(path).items():
            if row["split"] != split:
                continue
            if not row.get("image"):
                without += 1
                continue
            choices = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, row["choices"], strict=False))
            hint = f"Context: {row['hint'].strip()}\n" if str(row.get("hint") or "").strip() else ""
            question = f"{hint}{row['question']}\n{choices}"
            rows.add(root / split / number / row["image"], question, [LETTERS[int(row["answer"])]], hint=BY_LETTER)
    notes = [f"{without} questions without a picture are left out"] if without else []
    return rows.build(name="scienceqa", split=split, scoring="choice", notes=notes)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever is wrong with a file into one error that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"Expected questions as released in {visible(path)}, but got: {error!r}") from error


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
