"""Question answering: what a model answers to questions about pictures, attacked through the picture."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from crossguard.attacks.ascent import LossPerSample
from crossguard.attacks.base import Attack
from crossguard.checks import WrongKind, shown
from crossguard.data import PairBatch
from crossguard.data.questions import PictureQuestions
from crossguard.evaluate.answer_scores import score_answer, yes_or_no
from crossguard.evaluate.batches import preprocessed
from crossguard.evaluate.captioning_attack import check_caption_attack, check_target_text, says
from crossguard.evaluate.fingerprint import add_pictures
from crossguard.evaluate.statistics import Estimate, Ratio, attack_figures
from crossguard.evaluate.store import Arrays
from crossguard.evaluate.task import Rows
from crossguard.evaluate.writing import WritingTask, stored
from crossguard.progress import Reporter
from crossguard.threat import ThreatModel


@dataclass(frozen=True)
class Answering(WritingTask):
    """What a model that writes answers to questions about pictures; every question is attacked by itself.

    The attack raises the mean loss of the answers that people gave, each as often as it was given; with a `target`, it
    lowers the loss of that text instead, and succeeds where that is written.

    Rows, one per question: `index`, `image`, `group` (the picture's number), `question`, `answers`, `clean`, `robust`
    (what was answered), `clean_score`, `robust_score` (in [0, 1]), `linf`; with a target `clean_target`,
    `robust_target`; with `half_first` `half`, whether half precision was enough to leave no score.

    Args:
        beams: hypotheses kept per question.
        max_length: most tokens of an answer.
        target: a text that the attack is to make the model answer; None: there is none.
        half_first: gradients in half precision first; in single precision what then still scores, or does not yet say
            the target.
    """

    beams: int = 1
    max_length: int = 16

    name: ClassVar[str] = "question-answering"
    heading: ClassVar[str] = "Question answering"
    explained: ClassVar[str] = "Accuracy: VQA's agreement with people, or the share of right answers; F1 of yes."
    headline: ClassVar[tuple[str, ...]] = ("accuracy",)
    default_batch_size: ClassVar[int] = 16
    reads: ClassVar[str] = "questions"
    models: ClassVar[tuple[str, ...]] = ("captioner",)
    wrote: ClassVar[str] = "It answers"
    people: ClassVar[str] = "People say"
    asked: ClassVar[str] = "questions"

    @classmethod
    def fits(cls, model: object, data: object) -> bool:
        """Return whether the data are questions."""
        return isinstance(data, PictureQuestions)

    def check(self, attack: Attack | None, threat: ThreatModel | None) -> None:
        """Refuse a model that does not answer, other data, and what the attack cannot work with."""
        lacks = [name for name in ("answer", "answer_loss", "preprocess") if not hasattr(self.model, name)]
        if lacks or not isinstance(self.model, nn.Module):
            raise WrongKind(
                f"Expected a model that answers questions (Llava, QwenVL), but {type(self.model).__name__} lacks "
                f"{', '.join(lacks) or 'torch.nn.Module'}."
            )
        if not isinstance(self.data, PictureQuestions):
            raise WrongKind(f"Expected PictureQuestions (see crossguard.load_questions), but got {type(self.data)}.")
        if self.beams < 1 or self.max_length < 1:
            raise ValueError(f"Expected `beams` and `max_length` >= 1, but got {self.beams} and {self.max_length}.")
        if self.target is not None:
            model: Any = self.model
            check_target_text(model, self.target, max_length=self.max_length)
        if attack is not None and threat is not None:
            check_caption_attack(attack, threat, "references")

    def facts(self, progress: Reporter) -> dict[str, Any]:
        """Return the fingerprint of the data, and how answers are written."""
        return {
            "content": questions_fingerprint(self.data),
            "data_notes": list(self.data.notes),
            "beams": self.beams,
            "max_length": self.max_length,
        }

    def attack_facts(self, attack: Any) -> dict[str, Any]:
        """Return the attack's options, what it is for, and in which precision."""
        told = super().attack_facts(attack)
        return told if attack is None else told | {"target": self.target, "half_first": self.half_first}

    @property
    def rows(self) -> int:
        """One per question."""
        return len(self.data)

    @property
    def samples(self) -> str:
        """Questions and pictures."""
        return f"{len(self.data):,} questions about {len(self.data.images):,} pictures"

    def load_batch(self, ids: Int64[np.ndarray, " questions"], device: torch.device) -> PairBatch:
        """Decode the picture of each question; it stands for the question's place in what is stored."""
        return PairBatch(
            pixels=preprocessed(self.model, [self.data.image(int(i)) for i in ids]),
            texts=tuple(self.data.questions[int(i)] for i in ids),
            links=torch.stack([torch.arange(len(ids))] * 2, dim=1),
            image_ids=torch.from_numpy(ids),
            text_ids=torch.from_numpy(ids),
        ).to(device)

    def answer(self, batch: PairBatch, found: Arrays | None) -> list[str]:
        """Return an answer for each question."""
        pixels = batch.pixels if found is None else stored(found).pixels.to(batch.pixels.device)
        return self._written(pixels, batch.texts)

    def _written(self, pixels: Float[Tensor, "questions 3 height width"], questions: Sequence[str]) -> list[str]:
        with torch.no_grad():
            said = self.model.answer(pixels, list(questions), beams=self.beams, max_length=self.max_length)
        return [" ".join(text.split()) for text in said]

    def fallen(
        self, batch: PairBatch, pixels: Float[Tensor, "questions 3 height width"]
    ) -> Bool[np.ndarray, " questions"]:
        """Return which answers score nothing, or say the target."""
        written = self._written(pixels, batch.texts)
        return np.array([
            says(text, self.target)
            if self.target is not None
            else score_answer(text, self.data.answers[int(index)], self.data.scoring) == 0
            for text, index in zip(written, batch.image_ids.tolist(), strict=True)
        ])  # fmt: skip

    def loss(self, batch: PairBatch, clean: Sequence[str]) -> LossPerSample:
        """Return the mean loss of people's answers, each as often as it was given; with a target its own, negative."""
        if self.target is not None:
            wanted = [self.target] * len(batch.texts)
            return lambda pixels: -self.model.answer_loss(pixels, list(batch.texts), wanted)
        rows, questions, answers, weights = [], [], [], []
        for place, index in enumerate(batch.image_ids.tolist()):
            given = Counter(text for text in self.data.answers[index] if text.strip())
            for text, count in given.items():
                rows.append(place)
                questions.append(batch.texts[place])
                answers.append(text)
                weights.append(count / given.total())
        places = torch.tensor(rows, device=batch.pixels.device)
        shares = torch.tensor(weights, device=batch.pixels.device)

        def loss(pixels: Float[Tensor, "questions 3 height width"]) -> Float[Tensor, " questions"]:
            each = self.model.answer_loss(pixels, questions, answers, rows=places)
            return each.new_zeros(len(pixels)).index_add(0, places, each * shares.to(each.dtype))

        return loss

    def rows_of(
        self, batch: PairBatch, clean: Sequence[str], robust: Sequence[str] | None, found: Arrays | None
    ) -> list[dict[str, Any]]:
        """Return one row per question."""
        rows = []
        for place, index in enumerate(batch.image_ids.tolist()):
            people = self.data.answers[index]
            said = {"clean": clean[place], "robust": None if robust is None else robust[place]}
            row = {
                "index": index,
                "image": self.data.images[int(self.data.about[index])].key,
                "group": int(self.data.about[index]),
                "question": self.data.questions[index],
                "answers": list(people),
                "scoring": self.data.scoring,
                **said,
                "linf": None if found is None else float(found["linf"][place]),
            }
            for side, text in said.items():
                row[f"{side}_score"] = None if text is None else score_answer(text, people, self.data.scoring)
            row |= self.reached(said)
            if found is not None and "half" in found:
                row["half"] = bool(found["half"][place])
            rows.append(row)
        return rows

    @classmethod
    def ratios(cls, rows: Rows, side: str) -> dict[str, Ratio]:
        """Return the scores; of yes and no also F1 of yes."""
        groups = np.array([row["group"] for row in rows])
        scores = np.array([row[f"{side}_score"] for row in rows], dtype=np.float64)
        found = {"accuracy": Ratio(scores, np.ones(len(rows)), groups)}
        if all(row["scoring"] == "yes-no" for row in rows):
            said = np.array([yes_or_no(row[side]) == "yes" for row in rows], dtype=np.float64)
            true = np.array([row["answers"][0] == "yes" for row in rows], dtype=np.float64)
            found["F1"] = Ratio(2 * said * true, said + true, groups)
        return found

    def estimates(self, rows: Rows, settings: Mapping[str, Any]) -> dict[str, dict[str, Estimate | None]]:
        """Return all figures; with a target, the share of questions that are answered with it."""
        clean = self.ratios(rows, "clean")
        if settings["attack"] is None:
            return attack_figures(clean)
        robust, groups = self.ratios(rows, "robust"), clean["accuracy"].groups
        before, after = clean["accuracy"].part, robust["accuracy"].part
        lost = {"accuracy": Ratio(np.maximum(before - after, 0.0), before, groups)}  # of scores that are no hits
        found = attack_figures(clean, robust, lost=lost)
        if self.target is not None:
            reached = np.array([row["robust_target"] for row in rows])
            found["target"] = {"answers": Ratio.of_hits(reached, groups).figure()}
        return found

    def notes(self, rows: Rows, settings: Mapping[str, Any]) -> list[str]:
        """Return how answers are scored, and what the attack is for."""
        how = {
            "vqa": "VQA's accuracy: agreement with ten people's answers",
            "yes-no": "yes or no, read as POPE's authors do",
            "choice": "the letter of the right choice",
        }
        notes = [f"Scored by {how[self.data.scoring]}; {self.beams} beams, at most {self.max_length} tokens."]
        if settings["attack"] is None:
            return notes
        if self.target is None:
            notes.append("The attack raises the loss of people's answers, question by question.")
        else:
            before, after = (sum(row[f"{side}_target"] for row in rows) for side in ("clean", "robust"))
            notes.append(
                f"The attack lowers the loss of {shown(self.target)}, and succeeds where that is answered: to "
                f"{after} of {len(rows)} questions, without attack to {before}."
            )
        return notes + self.told_half(rows)

    def shown(self, row: Mapping[str, Any]) -> tuple[str, Mapping[str, str], Sequence[str]]:
        """Return the question, what is answered, and what people say, each answer once."""
        return row["question"], row, list(dict.fromkeys(row["answers"]))


def questions_fingerprint(data: PictureQuestions) -> str:
    """Return 32 hexadecimal digits that change with any picture, question or answer."""
    digest = blake2b(repr((data.questions, data.answers, data.scoring)).encode(), digest_size=16)
    add_pictures(digest, data.images)
    digest.update(data.about.tobytes())
    return digest.hexdigest()
