"""Questions about pictures in the files that VQAv2, TextVQA, POPE and ScienceQA were released in."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crossguard.checks import some, visible
from crossguard.data.files import locate
from crossguard.data.json_stream import Repeated, read_json, read_lines
from crossguard.data.pictures import Picture
from crossguard.data.questions import PictureQuestions, Scoring
from crossguard.data.reading import same_split

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BRIEFLY = "Answer the question using a single word or phrase."
BY_LETTER = "Answer with the option's letter from the given choices directly."
"""What LLaVA-1.5 adds to questions of benchmarks."""


@dataclass
class _Rows:
    """Questions as they are read; what is wrong with any of them is told together.

    Args:
        source: the file of the questions.
        root: the folder that the pictures' paths start from.
        outside_root: take paths that leave it, too.
    """

    source: Path
    root: Path
    outside_root: bool
    images: dict[str, int] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    about: list[int] = field(default_factory=list)
    answers: list[list[str]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def read(self, rows: Any, add: Callable[[Any], None]) -> None:
        """Take every row; `add` raises an error for one that is not as released."""
        if not isinstance(rows, Sequence) or isinstance(rows, str):
            raise ValueError(f"Expected questions as released in {visible(self.source)}, but got no list of them.")
        for number, row in enumerate(rows):
            try:
                add(row)
            except _NOT_AS_RELEASED as error:
                told = f"{error!r}" if isinstance(error, KeyError | IndexError) else str(error)
                self.bad.append(f"question {number}: {told}")

    def add(self, picture: str, question: object, answers: Iterable[object], *, hint: str) -> None:
        """Take a question about the picture of a path below the root."""
        told = [_text(answer, "an answer") for answer in answers]
        asked = _text(question, "a question").strip()
        if "\0" in picture:
            raise ValueError("a path with a null character")
        self.about.append(self.images.setdefault(picture, len(self.images)))
        self.questions.append(f"{asked}\n{hint}" if asked else "")
        self.answers.append(told)

    def build(self, *, name: str, split: str, scoring: Scoring, notes: Iterable[str] = ()) -> PictureQuestions:
        """Check that the pictures are there, and return the questions.

        Raises:
            ValueError: rows that are not as released, no questions, pictures that are missing or outside of the root.
        """
        if self.bad:
            raise ValueError(
                f"Expected questions as released in {visible(self.source)}, but {len(self.bad)} are not: "
                f"{some(self.bad, shown=3)}."
            )
        names = list(self.images)
        found = locate(names, self.root, outside_root=self.outside_root)
        leading = f"lead out of {visible(self.root)} (outside_root=True takes them all the same)"
        for places, fault in ((found.missing, "are missing"), (found.outside, leading)):
            if places:
                lost = [str(self.root / names[place]) for place in sorted(places)]
                raise ValueError(
                    f"Expected the pictures that {visible(self.source)} names, but {len(lost)} of {len(names)} "
                    f"{fault}: {some(lost, shown=3)}."
                )
        if not self.questions:
            raise ValueError(f"Expected questions of split {split!r} in {visible(self.source)}, but there are none.")
        pictures = [Picture(picture, self.root / picture) for picture in names]
        about = np.array(self.about, dtype=np.int64)
        return PictureQuestions(name, split, pictures, self.questions, about, self.answers, scoring, tuple(notes))


def load_vqav2(*, root: Path | str, split: str = "val", outside_root: bool = False) -> PictureQuestions:
    """Load VQAv2 (Goyal et al., 2017).

    Args:
        root: the folder with `v2_OpenEnded_mscoco_{split}2014_questions.json`, `v2_mscoco_{split}2014_annotations.json`
            and `{split}2014/COCO_{split}2014_000000000042.jpg`.
        split: "train" or "val"; answers of the test splits are not public.
        outside_root: take pictures outside of `root` too: paths with `..`, links that lead out.

    Raises:
        ValueError: files that are missing or of another form, keys or questions that come twice, questions without
            answers, missing pictures, or such that lie outside of `root`.
    """
    root, split = Path(root), same_split(split)
    asked = root / f"v2_OpenEnded_mscoco_{split}2014_questions.json"
    told = root / f"v2_mscoco_{split}2014_annotations.json"
    answered = _list(told, "annotations")
    answers: dict[Any, list[Any]] = {}
    try:
        for row in answered:
            answers[row["question_id"]] = [answer["answer"] for answer in row["answers"]]
    except _NOT_AS_RELEASED as error:
        raise ValueError(f"Expected questions as released in {visible(told)}, but got: {error!r}") from error
    questions = _list(asked, "questions")
    _check_different(questions, asked)
    _check_different(answered, told)
    rows = _Rows(asked, root, outside_root)

    def add(row: Any) -> None:
        picture = f"{split}2014/COCO_{split}2014_{_whole(row['image_id']):012d}.jpg"
        rows.add(picture, row["question"], answers.get(row["question_id"], ()), hint=BRIEFLY)

    rows.read(questions, add)
    return rows.build(name="vqav2", split=split, scoring="vqa")


def load_textvqa(*, root: Path | str, split: str = "val", outside_root: bool = False) -> PictureQuestions:
    """Load TextVQA (Singh et al., 2019).

    Args:
        root: the folder with `TextVQA_0.5.1_{split}.json` and `train_images/` (of val too).
        split: "train" or "val".
        outside_root: take pictures outside of `root` too: paths with `..`, links that lead out.

    Raises:
        ValueError: as `load_vqav2`.
    """
    split = same_split(split)
    path = Path(root) / f"TextVQA_0.5.1_{split}.json"
    rows = _Rows(path, Path(root), outside_root)

    def add(row: Any) -> None:
        picture = f"train_images/{_text(row['image_id'], 'an `image_id`')}.jpg"
        rows.add(picture, row["question"], row.get("answers", ()), hint=BRIEFLY)

    rows.read(_list(path, "data"), add)
    return rows.build(name="textvqa", split=split, scoring="vqa")


def load_pope(*, file: Path | str, root: Path | str, outside_root: bool = False) -> PictureQuestions:
    """Load POPE (Li et al., 2023): is there a thing in the picture, yes or no.

    Args:
        file: `coco_pope_random.json`, `..._popular.json` or `..._adversarial.json`: a JSON object a line.
        root: the folder of COCO's `val2014` pictures.
        outside_root: take pictures outside of `root` too: paths with `..`, links that lead out.

    Raises:
        ValueError: as `load_vqav2`; a label that is neither "yes" nor "no".
    """
    path = Path(file)
    rows = _Rows(path, Path(root), outside_root)

    def add(row: Any) -> None:
        if isinstance(row, Repeated):
            raise ValueError("a key that comes twice")
        if row["label"] not in ("yes", "no"):
            raise ValueError(f"a label that is neither yes nor no: {row['label']!r}")
        rows.add(_text(row["image"], "an image"), row["text"], [row["label"]], hint=BRIEFLY)

    try:
        lines = [row for _, row in read_lines(path)]
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected questions as released in {visible(path)}, but got: {error}") from error
    rows.read(lines, add)
    return rows.build(name=path.stem, split="test", scoring="yes-no")


def load_scienceqa(*, root: Path | str, split: str = "test", outside_root: bool = False) -> PictureQuestions:
    """Load the questions of ScienceQA (Lu et al., 2022) that have a picture; a choice is answered by its letter.

    Args:
        root: the folder with `problems.json` and `{split}/{id}/image.png`.
        split: "train", "val" or "test".
        outside_root: take pictures outside of `root` too: paths with `..`, links that lead out.

    Raises:
        ValueError: as `load_vqav2`; an answer that is none of the choices.
    """
    path, split = Path(root) / "problems.json", same_split(split)
    problems = _json(path)
    if not isinstance(problems, dict):
        raise ValueError(f"Expected questions as released in {visible(path)}, but got no object of them.")
    rows = _Rows(path, Path(root), outside_root)
    without = 0

    def add(problem: tuple[str, Any]) -> None:
        nonlocal without
        number, row = problem
        if same_split(_text(row["split"], "a split")) != split:
            return
        if row.get("image") is None or row["image"] == "":
            without += 1
            return
        choices = [_text(choice, "a choice") for choice in row["choices"]]
        answer = _whole(row["answer"])
        if not 0 <= answer < len(choices) <= len(LETTERS):
            raise ValueError(f"answer {answer} of {len(choices)} choices")
        listed = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=False))
        hint = _text(row.get("hint") or "", "a hint").strip()
        question = f"Context: {hint}\n" * bool(hint) + f"{_text(row['question'], 'a question')}\n{listed}"
        rows.add(f"{split}/{number}/{_text(row['image'], 'an image')}", question, [LETTERS[answer]], hint=BY_LETTER)

    rows.read(list(problems.items()), add)
    notes = [f"{without} questions without a picture are left out"] if without else []
    return rows.build(name="scienceqa", split=split, scoring="choice", notes=notes)


_NOT_AS_RELEASED = (ValueError, KeyError, TypeError, AttributeError, IndexError)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} that is no text: {str(value)[:40]!r}")
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"no whole number: {str(value)[:40]!r}")
    return value


def _list(path: Path, key: str) -> list[Any]:
    found = _json(path)
    rows = found.get(key) if isinstance(found, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f"Expected questions as released in {visible(path)}, but got no list of {key!r}.")
    return rows


def _check_different(rows: Sequence[Any], path: Path) -> None:
    times = Counter(str(row.get("question_id")) for row in rows if isinstance(row, Mapping))
    again = [number for number, count in times.items() if count > 1]
    if again:
        raise ValueError(
            f"Expected different questions in {visible(path)}, but {len(again)} come again: {some(again)}."
        )


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected questions as released in {visible(path)}, but got: {error}") from error
