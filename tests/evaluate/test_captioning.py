"""Captioning from end to end with a tiny captioner: rows by hand, attacks that raise the loss, resuming, mistakes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossguard.data import OneToManyPairs, Picture
from crossguard.evaluate import captioning_tokens, evaluate
from crossguard.evaluate.captioning_attack import caption_objective
from crossguard.evaluate.captioning_scores import score_captions
from crossguard.evaluate.tasks.captioning import Captioning
from crossguard.runs import RunFolder
from crossguard.threat import LInf, ThreatModel, WordEdits
from fusion_models import make_captioner
from shared import draw

pytest.importorskip("pycocoevalcap.bleu.bleu_scorer", reason="pycocoevalcap is not installed (extra `captions`)")

THREAT = ThreatModel(image=LInf(eps=32 / 255))
STEPS = {"steps": 4}


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """What Java adds is tested with the scores."""
    monkeypatch.setattr(captioning_tokens.shutil, "which", lambda _: None)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_captioner(tmp_path_factory.mktemp("captioner"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    pictures = []
    for colour, shape in (
        ("red", "disc"),
        ("blue", "square"),
        ("green", "cross"),
        ("yellow", "disc"),
        ("red", "cross"),
    ):
        path = folder / f"{colour}-{shape}.png"
        draw(colour, shape, "left").save(path)
        pictures.append(Picture(path.stem, path))
    texts = ["a red disc", "the small disc", "a blue square on the left", "green cross", "the yellow disc", "red cross"]
    links = np.array([[0, 0], [0, 1], [1, 2], [2, 3], [3, 4], [3, 1], [4, 5]])
    return OneToManyPairs("drawn", "test", tuple(pictures), tuple(texts), links)


def measure(model, data, **options):
    return evaluate(model, data, task="captioning", **{"batch_size": 2, "max_length": 12, **options})


def test_rows_equal_what_the_model_writes(model, data):
    result = measure(model, data)
    pixels = model.preprocess([data.image(i) for i in range(5)])
    written = model.generate(pixels, beams=3, min_length=5, max_length=12)
    assert [row["clean_caption"] for row in result.rows] == written
    for image, row in enumerate(result.rows):
        assert row["references"] == [data.texts[j] for j in data.texts_of(image)]
        losses = [model.caption_loss(pixels[image : image + 1], [text]).item() for text in row["references"]]
        assert row["clean_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert (row["robust_caption"], row["robust_loss"], row["linf"]) == (None, None, None)
    assert set(result.clean) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"}
    about = result.outcomes[0].about
    assert set(about["missing"]) == {"METEOR", "SPICE"}
    assert (result.robust, result.success) == (None, None)
    figure = result.figure("clean", "ROUGE-L")
    groups = data.groups[0].tolist()  # two pictures share a text
    assert (figure.low, figure.groups, figure.why) == (None, 4, "there are 4 groups, fewer than 8")
    weights = [groups.count(int(name)) for name in figure.by_group]
    assert np.average(list(figure.by_group.values()), weights=weights) == pytest.approx(result.clean["ROUGE-L"])
    assert result.settings["beams"] == 3
    assert about["tokenizer"] == "plain"


@pytest.mark.parametrize(
    ("attack", "objective"), [("pgd", "references"), ("apgd", "references"), ("pgd", "own-caption")]
)
def test_attacks_raise_the_loss_they_are_for_within_the_budget(model, data, attack, objective):
    clean = measure(model, data)
    result = measure(model, data, attack=attack, threat=THREAT, objective=objective, attack_options=STEPS)
    assert [row["clean_caption"] for row in result.rows] == [row["clean_caption"] for row in clean.rows]
    assert all(0 < row["linf"] <= 32 / 255 + 1e-6 for row in result.rows)
    if objective == "references":
        assert all(row["robust_loss"] > row["clean_loss"] for row in result.rows)
    changed = sum(row["clean_caption"] != row["robust_caption"] for row in result.rows)
    assert result.success["changed"]["captions"] == 100 * changed / 5
    assert result.intervals["changed"]["captions"] is None  # four groups
    assert result.success["drop"]["CIDEr"] == pytest.approx(result.clean["CIDEr"] - result.robust["CIDEr"])


def test_half_precision_first(model, data):
    how = {"attack": "pgd", "threat": THREAT, "attack_options": STEPS}
    alone = measure(model, data, **how)
    captions = [row["robust_caption"] for row in alone.rows]
    ciders = score_captions([row["references"] for row in alone.rows], captions, tokenizer="plain").each["CIDEr"]
    enough = float(np.median(ciders)) + 1e-6
    result = measure(model, data, half_first=True, enough=enough, **how)
    captions = [row["robust_caption"] for row in result.rows]
    ciders = score_captions([row["references"] for row in result.rows], captions, tokenizer="plain").each["CIDEr"]
    halves = [row["half"] for row in result.rows]
    assert any(halves)
    for row, single, cider in zip(result.rows, alone.rows, ciders, strict=True):
        assert cider < enough if row["half"] else row["robust_caption"] == single["robust_caption"]
    assert any(f"enough for {sum(halves)} of 5 pictures" in note for note in result.notes)
    everything = measure(model, data, half_first=True, enough=0.0, **how)
    assert [row["robust_caption"] for row in everything.rows] == [row["robust_caption"] for row in alone.rows]


def test_own_caption_moves_away_from_what_was_written(model, data, tmp_path):
    with open_run(tmp_path / "run") as run:
        result = measure(
            model, data, attack="pgd", threat=THREAT, objective="own-caption", attack_options=STEPS, run=run
        )
    stored = np.load(next((tmp_path / "run" / "adversarial").rglob("batch-00000.npz")))
    clean = model.preprocess([data.image(i) for i in range(2)])
    own = [row["clean_caption"] for row in result.rows[:2]]
    loss = caption_objective(model, own, torch.arange(2))
    assert (loss(torch.from_numpy(stored["grey"]).float() / 255) > loss(clean)).all()


def test_the_loss_of_an_image_is_the_mean_over_its_captions_and_does_not_depend_on_others(model):
    pixels = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    captions, rows = ["a red disc", "the dog", "small blue square"], torch.tensor([2, 2, 0])
    found = caption_objective(model, captions, rows)(pixels)
    each = model.caption_loss(pixels[rows], captions)
    torch.testing.assert_close(found, torch.stack([each[2], torch.tensor(0.0), (each[0] + each[1]) / 2]))
    nothing = caption_objective(model, [], torch.zeros(0, dtype=torch.int64))(pixels.requires_grad_())
    assert nothing.tolist() == [0, 0, 0]
    nothing.sum().backward()


def open_run(folder):
    return RunFolder.open(folder, settings={"task": "captioning"}, seed=0)


def test_a_run_goes_on_where_it_stopped(model, data, tmp_path, monkeypatch):
    options = {"attack": "pgd", "threat": THREAT, "attack_options": STEPS, "seed": 4}
    data = replace(data, notes=("1 row left out",))
    whole = measure(model, data, **options)
    calls = []

    class Stopped(Exception):
        pass

    real = Captioning.attack

    def counted(self, batch, *rest):
        calls.append(batch.image_ids.tolist())
        if len(calls) == 2:
            raise Stopped
        return real(self, batch, *rest)

    monkeypatch.setattr(Captioning, "attack", counted)
    with open_run(tmp_path / "run") as run, pytest.raises(Stopped):
        measure(model, data, run=run, **options)
    with open_run(tmp_path / "run") as run:
        result = measure(model, data, run=run, **options)
        monkeypatch.setattr(Captioning, "figures", None)  # a finished one is read back
        again = measure(model, data, run=run, **options)
    assert calls == [[0, 1], [2, 3], [2, 3], [4]]
    assert list(result.rows) == list(again.rows) == list(whole.rows)
    assert result.figures == again.figures == whole.figures
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]["captioning/blip-captioner/image"]
    assert (summary["about"]["samples"], summary["objective"]) == ("5 images with 7 references", "references")
    assert summary["data_notes"] == ["1 row left out"]
    assert len(summary["examples"]) == 4
    assert len((tmp_path / "run" / "rows.jsonl").read_text().splitlines()) == 5
    with open_run(tmp_path / "run") as run, pytest.raises(ValueError, match="`beams` is 3 there and 2 now"):
        measure(model, data, run=run, beams=2, **options)


def test_examples_show_both_pictures(model, data):
    result = measure(model, data, attack="pgd", threat=THREAT, attack_options=STEPS, examples=2)
    rows = [result.rows[0], result.rows[4]]
    for example, row in zip(result.examples, rows, strict=True):
        (asked,) = example.asked
        assert asked.picture.shape == (24, 24, 3)
        assert 0 < np.abs(asked.picture.astype(int) - asked.clean).max() <= 32
        after = example.answers["Under attack"][0]
        assert (after.text, after.source) == (row["robust_caption"], row["clean_caption"])
        assert [item.text for item in example.answers["People wrote"]] == row["references"]


class TestMistakes:
    def test_no_captioner(self, tiny_clip, data, unchecked):
        with pytest.raises(TypeError, match="Expected a Captioner.*CLIP is none"):
            measure(tiny_clip, data)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"attack": "word-swap", "threat": ThreatModel(text=WordEdits(words=1))},
                "maximises any loss of images .pgd, apgd., but got 'word-swap'",
            ),
            ({"attack": "pgd", "threat": THREAT, "objective": "reference"}, "did you mean 'references'"),
            ({"attack": "pgd"}, "what attack 'pgd' may do"),
            ({"threat": THREAT}, "`attack` is None"),
            ({"beams": 0}, "beams >= 1"),
            ({"min_length": 30}, "min_length <= max_length"),
            ({"batch_size": 0}, "`batch_size` to be a whole number >= 1"),
        ],
    )
    def test_arguments(self, model, data, unchecked, options, message):
        with pytest.raises(ValueError, match=message):
            measure(model, data, **options)

    def test_the_package_is_asked_for_before_any_work(self, model, data, monkeypatch):
        def gone(name):
            raise ImportError(name)

        monkeypatch.setattr(captioning_tokens, "import_module", gone)
        monkeypatch.setattr(type(model), "generate", lambda *_, **__: pytest.fail("it wrote captions first"))
        with pytest.raises(ImportError, match="pycocoevalcap"):
            measure(model, data)


class TestTargets:
    def test_the_attack_makes_the_target_likely_and_success_is_that_it_is_written(self, model, data):
        target = "the yellow cross"
        result = measure(model, data, attack="pgd", threat=THREAT, target=target, attack_options={"steps": 6})
        pixels = model.preprocess([data.image(i) for i in range(5)])
        before = model.caption_loss(pixels, [target] * 5)
        again = measure(model, data, attack="pgd", threat=THREAT, attack_options={"steps": 6})
        assert [row["clean_caption"] for row in result.rows] == [row["clean_caption"] for row in again.rows]
        for row in result.rows:
            for side in ("clean", "robust"):
                assert row[f"{side}_target"] == (f" {target} " in f" {row[f'{side}_caption']} ")
            assert row["linf"] <= 32 / 255 + 1e-6
        share = 100 * np.mean([row["robust_target"] for row in result.rows])
        assert result.success["target"]["captions"] == pytest.approx(share)
        assert any("lowers the loss of 'the yellow cross'" in note for note in result.notes)
        assert before.isfinite().all()

    def test_what_is_written_anyway_is_reached(self, model, data):
        written = measure(model, data).rows[0]["clean_caption"]
        result = measure(
            model, data, attack="pgd", threat=ThreatModel(image=LInf(1 / 255)), target=written, attack_options=STEPS
        )
        assert result.rows[0]["clean_target"]

    def test_the_loss_of_the_target_falls(self, model, data, tmp_path):
        with RunFolder.open(tmp_path / "run", settings={}) as run:
            measure(
                model, data, attack="pgd", threat=THREAT, target="green cross", attack_options={"steps": 6}, run=run
            )
        stored = sorted((tmp_path / "run" / "adversarial").rglob("batch-*.npz"))
        moved = torch.from_numpy(np.concatenate([np.load(path)["grey"] for path in stored])).float() / 255
        pixels = model.preprocess([data.image(i) for i in range(5)])
        with torch.no_grad():
            falls = model.caption_loss(pixels, ["green cross"] * 5) - model.caption_loss(moved, ["green cross"] * 5)
        assert float(falls.min()) > 0

    @pytest.mark.parametrize(
        ("target", "message"),
        [("  ", "to be written"), ("a zebra", "unknown words"), ("red disc " * 9, "at most 12 tokens")],
    )
    def test_targets_that_cannot_be_written_are_refused(self, model, data, target, message):
        with pytest.raises(ValueError, match=message):
            measure(model, data, attack="pgd", threat=THREAT, target=target)
