"""Zero-shot classification against cosines done by hand, under attack, and taken up after an interruption."""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import crossguard as cg
from crossguard.checks import WrongKind
from crossguard.data import LabelledImages
from crossguard.evaluate.tasks.zero_shot import ZeroShot
from crossguard.runs import RunFolder
from shared import fit_clip

THREAT = cg.ThreatModel(image=cg.LInf(8 / 255))


@pytest.fixture
def images(toy_pairs):
    names = ("disc", "square", "cross")
    labels = [next(i for i, name in enumerate(names) if name in picture.key) for picture in toy_pairs.images]
    return LabelledImages("shapes", "test", toy_pairs.images, np.array(labels), names, ("a {c}", "the red {c}"))


@pytest.fixture
def model(toy_pairs):
    return fit_clip(toy_pairs)


def by_hand(model, images, pixels):
    """Each picture's nearest class, one after the other."""
    classes = []
    for name in images.classes:
        prompts = [
            normalize(model.encode_text([template.replace("{c}", name)])[0], dim=0) for template in images.templates
        ]
        classes.append(normalize(torch.stack(prompts).mean(dim=0), dim=0))
    return [
        max(range(len(classes)), key=lambda c: float(normalize(model.encode_image(one[None])[0], dim=0) @ classes[c]))
        for one in pixels
    ]


@torch.no_grad()
def test_rows_are_the_nearest_classes_clean_and_under_attack(model, images, tmp_path):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        result = cg.evaluate(model, images, attack="pgd", threat=THREAT, batch_size=10, run=run, seed=3)
    assert result.task == "zero-shot"
    pixels = model.preprocess([images.image(i) for i in range(len(images))])
    stored = sorted((tmp_path / "run" / "adversarial").rglob("batch-*.npz"))
    moved = torch.from_numpy(np.concatenate([np.load(path)["values/image"] for path in stored]))
    assert 0 < float((moved - pixels).abs().max()) <= 8 / 255 + 1e-6
    for side, seen in (("clean", pixels), ("robust", moved)):
        found = [images.classes[c] for c in by_hand(model, images, seen)]
        assert [row[side] for row in result.rows] == found
        right = np.mean([name == images.classes[label] for name, label in zip(found, images.labels, strict=True)])
        assert getattr(result, side)["accuracy"] == pytest.approx(100 * right)
    assert [row["image"] for row in result.rows] == [picture.key for picture in images.images]
    assert result.robust["accuracy"] < result.clean["accuracy"]
    for example in result.examples:
        asked = example.asked[0]
        assert np.abs(asked.picture.astype(int) - asked.clean).max() <= 8
        assert example.answers["Without attack"][0].right


def test_every_attack_on_classifiers_is_one_on_pictures(model, images):
    few = images.spread(6)
    for name, options in (("apgd", {"steps": 2}), ("adaptive", {"steps": 5}), ("auto-attack", {})):
        result = cg.evaluate(model, few, attack=name, attack_options=options or None, threat=THREAT)
        assert result.robust["accuracy"] <= result.clean["accuracy"]
        assert all(row["linf"]["image"] <= 8 / 255 + 1e-6 for row in result.rows)


def test_several_attacks_are_taken_up_where_they_stopped(model, images, tmp_path, monkeypatch):
    given = {"attack": ["pgd", "apgd"], "threat": THREAT, "batch_size": 10, "seed": 1}
    whole = cg.evaluate(model, images, **given)
    attack, calls = ZeroShot.attack, []

    def stopping(self, *values):
        calls.append(values)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return attack(self, *values)

    monkeypatch.setattr(ZeroShot, "attack", stopping)
    with RunFolder.open(tmp_path / "run", settings={}) as run, pytest.raises(KeyboardInterrupt):
        cg.evaluate(model, images, run=run, **given)
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        result = cg.evaluate(model, images, run=run, **given)
        assert len(calls) == 4 + 2 * 3 - 3
        again = cg.evaluate(model, images, run=run, **given)
        assert len(calls) == 7
    assert result.rows == again.rows == whole.rows
    assert result.figures == again.figures == whole.figures
    entries = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    assert list(entries) == ["zero-shot/tiny, pgd/image", "zero-shot/tiny, apgd/image"]


def test_pictures_that_belong_together_are_one_group(model, images):
    together = LabelledImages(
        images.name, images.split, images.images, images.labels, images.classes, groups=np.arange(len(images)) // 2
    )
    figure = cg.evaluate(model, together).figure("clean", "accuracy")
    assert (figure.n, figure.groups) == (24, 12)


def test_the_emoji_have_subgroups():
    images = cg.load_images("emoji-classes", split="test")
    by = {name: sum(images.labels == place) for place, name in enumerate(images.classes)}
    assert len(by) > 30
    assert min(by.values()) >= 3
    assert "country flag" in by
    assert len(cg.load_images("emoji-classes", split="test", by="group").classes) == 9
    with pytest.raises(ValueError, match="'group', 'subgroup'"):
        cg.load_images("emoji-classes", by="subgroups")
    pairs = cg.load_pairs("emoji", split="test")
    assert len(images) + int(images.notes[-1].split()[0]) == len(pairs.images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack": "pgd"}, "Expected a threat model"),
        ({"attack": "pgd", "threat": cg.ThreatModel(text=cg.WordEdits(1))}, "modality in the threat model 'text'"),
        ({"attack": "sga", "threat": THREAT}, "Expected an attack on samples"),
        ({"templates": ("{c}",)}, "Unknown option 'templates'"),
    ],
)
def test_mistakes_are_told_before_the_model_is_asked(model, images, options, message, monkeypatch):
    monkeypatch.setattr(type(model), "encode_image", lambda *_: pytest.fail("the model was asked"))
    with pytest.raises(ValueError, match=message):
        cg.evaluate(model, images, **options)


def test_other_models_and_data_are_refused(images, toy_pairs, model, unchecked):
    with pytest.raises(WrongKind, match="lacks: name"):
        cg.evaluate(torch.nn.Linear(2, 2), images)
    with pytest.raises(WrongKind, match="Expected LabelledImages"):
        cg.evaluate(model, toy_pairs, task="zero-shot")
