"""Questions about pictures: released files, scores done by hand, attacks, targets, and half precision first."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import crossguard as cg
from crossguard.checks import WrongKind
from crossguard.data import Picture
from crossguard.evaluate.answer_scores import chosen_letter, normalise_answer, vqa_accuracy, yes_or_no
from crossguard.models import load_model
from crossguard.runs import RunFolder
from llava_files import llava
from shared import COLOURS, draw

THREAT = cg.ThreatModel(image=cg.LInf(16 / 255))
STEPS = {"steps": 4}


class TestScores:
    @pytest.mark.parametrize(
        ("answer", "people", "score"),
        [
            ("red", ["red"] * 10, 1.0),
            ("Red.", ["red"] * 2 + ["blue"] * 8, (2 * (1 / 3) + 8 * (2 / 3)) / 10),
            ("a cat", ["cat"] * 3 + ["dog"] * 7, (3 * (2 / 3) + 7 * 1) / 10),
            ("two", ["2"] * 4 + ["3"] * 6, 1.0),
            ("green", ["red"] * 10, 0.0),
            ("dont know", ["don't know"] * 10, 1.0),
            ("left", ["left"], 1.0),
        ],
    )
    def test_agreement_with_people_leaving_out_each(self, answer, people, score):
        assert vqa_accuracy(answer, people) == pytest.approx(score)

    def test_answers_are_compared_as_words(self):
        assert normalise_answer("  The Tennis-racket, \n") == "tennis racket"
        assert normalise_answer("$3.50") == "$3.50"
        assert normalise_answer("St. John's") == "st john's"
        assert normalise_answer("none") == "0"

    def test_yes_no_and_letters(self):
        assert [yes_or_no(text) for text in ("Yes, there is.", "no", "There is not a dog.", "Nothing")] == [
            "yes",
            "no",
            "no",
            "yes",
        ]
        assert [chosen_letter(text) for text in ("B.", "A", "(B)", "Answer is C", "The answer is D.")] == [
            "B",
            "A",
            "",
            "C",
            "D",
        ]


@pytest.fixture
def released(tmp_path):
    """The four sets in their released files, four pictures."""
    numbers = (42, 73, 74, 133)
    for folder in ("val2014", "train_images", *(f"test/{n}" for n in range(4))):
        (tmp_path / folder).mkdir(parents=True)
    for place, (number, colour) in enumerate(zip(numbers, COLOURS, strict=True)):
        picture = draw(colour, "disc", "left")
        picture.save(tmp_path / "val2014" / f"COCO_val2014_{number:012d}.jpg")
        picture.save(tmp_path / "train_images" / f"{number:04x}.jpg")
        picture.save(tmp_path / "test" / str(place) / "image.png")
    write = lambda name, value: (tmp_path / name).write_text(json.dumps(value))  # noqa: E731
    asked = [{"image_id": n, "question": f"what is {p}?", "question_id": n * 1000} for p, n in enumerate(numbers)]
    write("v2_OpenEnded_mscoco_val2014_questions.json", {"questions": asked})
    told = [
        {"question_id": n * 1000, "image_id": n, "answers": [{"answer": c, "answer_id": k + 1} for k in range(10)]}
        for n, c in zip(numbers, COLOURS, strict=True)
    ]
    write("v2_mscoco_val2014_annotations.json", {"annotations": told})
    rows = [
        {"question": "what is it", "image_id": f"{n:04x}", "question_id": p, "answers": [c] * 10}
        for p, (n, c) in enumerate(zip(numbers, COLOURS, strict=True))
    ]
    write("TextVQA_0.5.1_val.json", {"data": rows})
    lines = [
        {
            "question_id": p,
            "image": f"COCO_val2014_{n:012d}.jpg",
            "text": "Is there a disc?",
            "label": "yes" if p % 2 else "no",
        }
        for p, n in enumerate(numbers)
    ]
    (tmp_path / "coco_pope_random.json").write_text("\n".join(map(json.dumps, lines)) + "\n")
    problems = {
        str(p): {
            "question": "which?",
            "choices": ["a", "b"],
            "answer": p % 2,
            "image": "image.png",
            "hint": "see",
            "split": "test",
        }
        for p in range(4)
    }
    problems |= {"9": problems["0"] | {"image": None}, "10": problems["0"] | {"split": "train"}}
    write("problems.json", problems)
    return tmp_path


class TestFiles:
    def test_vqav2(self, released):
        data = cg.load_questions("vqav2", root=released)
        assert (len(data), len(data.images), data.split, data.scoring) == (4, 4, "val", "vqa")
        assert data.questions[1] == "what is 1?\nAnswer the question using a single word or phrase."
        assert data.answers[2] == ("blue",) * 10
        assert data.image(3).size == (24, 24)

    def test_textvqa_pope_and_scienceqa(self, released):
        assert cg.load_questions("textvqa", root=released).answers[0] == ("red",) * 10
        pope = cg.load_questions("pope", file=released / "coco_pope_random.json", root=released / "val2014")
        assert (pope.name, pope.scoring, [a[0] for a in pope.answers]) == (
            "coco_pope_random",
            "yes-no",
            ["no", "yes"] * 2,
        )
        science = cg.load_questions("scienceqa", root=released)
        assert [a[0] for a in science.answers] == ["A", "B", "A", "B"]
        assert science.questions[0].splitlines() == [
            "Context: see",
            "which?",
            "A. a",
            "B. b",
            "Answer with the option's letter from the given choices directly.",
        ]
        assert science.notes == ("1 questions without a picture are left out",)

    def test_what_is_missing_is_named(self, released):
        told = json.loads((released / "v2_mscoco_val2014_annotations.json").read_text())
        told["annotations"].pop()
        (released / "v2_mscoco_val2014_annotations.json").write_text(json.dumps(told))
        with pytest.raises(ValueError, match=r"1 have no answer \(3\)"):
            cg.load_questions("vqav2", root=released)
        (released / "val2014" / "COCO_val2014_000000000042.jpg").unlink()
        with pytest.raises(ValueError, match="1 of 4 are missing: .*000042.jpg"):
            cg.load_questions("pope", file=released / "coco_pope_random.json", root=released / "val2014")
        (released / "problems.json").write_text("[]")
        with pytest.raises(ValueError, match="questions as released in .*problems.json"):
            cg.load_questions("scienceqa", root=released)

    @pytest.mark.parametrize(
        ("name", "file", "change", "said"),
        [
            (
                "vqav2",
                "v2_OpenEnded_mscoco_val2014_questions.json",
                ("question", None),
                "a question that is no text: 'None'",
            ),
            ("vqav2", "v2_OpenEnded_mscoco_val2014_questions.json", ("question", " "), r"1 questions are blank \(0\)"),
            ("vqav2", "v2_OpenEnded_mscoco_val2014_questions.json", ("image_id", "42"), "no whole number: '42'"),
            ("vqav2", "v2_OpenEnded_mscoco_val2014_questions.json", ("question_id", 73000), r"but 1 come again: 73000"),
            ("vqav2", "v2_mscoco_val2014_annotations.json", ("question_id", 73000), r"but 1 come again: 73000"),
            (
                "vqav2",
                "v2_mscoco_val2014_annotations.json",
                ("answers", [{"answer": 3}]),
                "an answer that is no text: '3'",
            ),
            ("textvqa", "TextVQA_0.5.1_val.json", ("answers", [None]), "an answer that is no text"),
            (
                "textvqa",
                "TextVQA_0.5.1_val.json",
                ("image_id", "../../secret"),
                "1 of 4 lead out of .*outside_root=True",
            ),
            ("scienceqa", "problems.json", ("answer", -1), "answer -1 of 2 choices"),
            ("scienceqa", "problems.json", ("answer", 2), "question 0: answer 2 of 2 choices"),
            ("scienceqa", "problems.json", ("choices", ["a", 3]), "a choice that is no text"),
            ("scienceqa", "problems.json", ("image", "/etc/passwd.png"), "1 of 4 are missing"),
        ],
    )
    def test_what_is_not_as_released(self, released, name, file, change, said):
        path = released / file
        (released / "secret.jpg").write_bytes((released / "val2014" / "COCO_val2014_000000000042.jpg").read_bytes())
        content = json.loads(path.read_text())
        rows = next((rows for rows in content.values() if isinstance(rows, list)), None) or list(content.values())
        rows[0][change[0]] = change[1]
        path.write_text(json.dumps(content))
        root = released
        if "lead out" in said and name == "textvqa":
            root = released / "inner"
            root.mkdir()
            (released / "train_images").rename(root / "train_images")
            path.rename(root / file)
        with pytest.raises(ValueError, match=said):
            cg.load_questions(name, root=root)
        if root != released:
            assert len(cg.load_questions(name, root=root, outside_root=True)) == 4

    def test_keys_that_come_twice_and_pictures_of_one_name(self, released):
        path = released / "coco_pope_random.json"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:3], lines[3][:-1] + ', "label": "no"}', "[1]"]))
        with pytest.raises(ValueError, match="but 2 are not: question 3: a key that comes twice, question 4: "):
            cg.load_questions("pope", file=path, root=released / "val2014")
        (released / "other").mkdir()
        draw("red", "disc", "left").save(released / "other" / "COCO_val2014_000000000042.jpg")
        rows = [json.loads(line) for line in lines[:2]]
        for row, folder in zip(rows, ("val2014", "other"), strict=True):
            row["image"] = f"{folder}/COCO_val2014_000000000042.jpg"
        path.write_text("\n".join(map(json.dumps, rows)))
        pope = cg.load_questions("pope", file=path, root=released)
        assert [picture.path.parent.name for picture in pope.images] == ["val2014", "other"]
        (released / "problems.json").write_text('{"0": {}, "0": {}}')
        with pytest.raises(ValueError, match="a key that comes twice among 0, 0"):
            cg.load_questions("scienceqa", root=released)
        (released / "TextVQA_0.5.1_val.json").write_text("[" * 5000)
        with pytest.raises(ValueError, match="nests too deep"):
            cg.load_questions("textvqa", root=released, split="validation")

    def test_drawing_is_seeded(self, released):
        data = cg.load_questions("vqav2", root=released)
        assert data.draw(2, seed=1).questions == data.draw(2, seed=1).questions
        assert {data.draw(2, seed=s).questions for s in range(9)} != {data.draw(2, seed=1).questions}
        assert data.head(2).questions == data.questions[:2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava") / "llava"
    llava(folder)
    return load_model(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("pictures")
    pictures = []
    for colour in COLOURS:
        draw(colour, "disc", "left").save(folder / f"{colour}.png")
        pictures.append(Picture(colour, folder / f"{colour}.png"))
    questions = [*(f"what is on the {side}" for side in ("left", "right")), "what is this", "what"]
    answers = [["red"] * 6 + ["blue"] * 4, ["green"] * 10, ["red", "yellow"] * 5, ["disc"] * 10]
    return cg.PictureQuestions("drawn", "test", pictures, questions, np.array([0, 1, 1, 3]), answers)


def measure(model, data, **options):
    return cg.evaluate(model, data, **{"batch_size": 3, "max_length": 4, **options})


def pixels_of(model, data, folder=None):
    if folder is None:
        return model.preprocess([data.image(i) for i in range(len(data))])
    stored = sorted((folder / "adversarial").rglob("batch-*.npz"))
    return torch.from_numpy(np.concatenate([np.load(path)["grey"] for path in stored])).float() / 255


def test_rows_are_what_the_model_answers_and_the_loss_rises(model, data, tmp_path):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        result = measure(model, data, attack="pgd", threat=THREAT, attack_options=STEPS, run=run)
    assert result.task == "question-answering"
    clean, moved = pixels_of(model, data), pixels_of(model, data, tmp_path / "run")
    for side, pixels in (("clean", clean), ("robust", moved)):
        said = [" ".join(text.split()) for text in model.answer(pixels, list(data.questions), max_length=4)]
        assert [row[side] for row in result.rows] == said
        scores = [vqa_accuracy(text, people) for text, people in zip(said, data.answers, strict=True)]
        assert getattr(result, side)["accuracy"] == pytest.approx(100 * np.mean(scores))
    with torch.no_grad():
        shares = [
            (0, "red", 0.6),
            (0, "blue", 0.4),
            (1, "green", 1.0),
            (2, "red", 0.5),
            (2, "yellow", 0.5),
            (3, "disc", 1.0),
        ]
        rises = np.zeros(4)
        for place, text, share in shares:
            both = [model.answer_loss(p[place][None], [data.questions[place]], [text]).item() for p in (clean, moved)]
            rises[place] += share * (both[1] - both[0])
    assert rises.min() > 0
    assert float((moved - clean).abs().max()) <= 16 / 255 + 1e-6
    assert [row["group"] for row in result.rows] == [0, 1, 1, 3]


def test_a_target_is_what_the_attack_is_for(model, data, tmp_path):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        result = measure(model, data, attack="pgd", threat=THREAT, attack_options=STEPS, run=run, target="yellow")
    clean, moved = pixels_of(model, data), pixels_of(model, data, tmp_path / "run")
    with torch.no_grad():
        falls = model.answer_loss(clean, list(data.questions), ["yellow"] * 4) - model.answer_loss(
            moved, list(data.questions), ["yellow"] * 4
        )
    assert float(falls.min()) > 0
    share = 100 * np.mean([" yellow " in f" {row['robust']} " for row in result.rows])
    assert result.success["target"]["answers"] == pytest.approx(share)
    with pytest.raises(ValueError, match="unknown words"):
        measure(model, data, attack="pgd", threat=THREAT, target="zebra")


def test_half_precision_first(model, data):
    result = measure(model, data, attack="pgd", threat=THREAT, attack_options=STEPS, half_first=True)
    alone = measure(model, data, attack="pgd", threat=THREAT, attack_options=STEPS)
    for row, single in zip(result.rows, alone.rows, strict=True):
        assert not (row["half"] and row["robust_score"] > 0)
        assert row["half"] or row["robust"] == single["robust"]
    assert any("Half precision was enough" in note for note in result.notes)


def test_f1_of_yes(model, data):
    answers = [["yes"], ["no"], ["yes"], ["no"]]
    questions = cg.PictureQuestions("pope", "test", data.images, data.questions, data.about, answers, "yes-no")
    result = measure(model, questions)
    said = [yes_or_no(row["clean"]) == "yes" for row in result.rows]
    true = [own == ["yes"] for own in answers]
    hits = sum(a and b for a, b in zip(said, true, strict=True))
    assert result.clean["F1"] == pytest.approx(200 * hits / (sum(said) + sum(true)))


def test_other_models_and_data_are_refused(model, data, toy_pairs, unchecked):
    with pytest.raises(WrongKind, match="lacks answer"):
        cg.evaluate(torch.nn.Linear(1, 1), data)
    with pytest.raises(WrongKind, match="Expected PictureQuestions"):
        cg.evaluate(model, toy_pairs, task="question-answering")
    with pytest.raises(ValueError, match="attack that maximises any loss"):
        measure(model, data, attack="sga", threat=THREAT)
