"""Grounding from end to end: against every step done by hand, under attack, resumed, and with wrong arguments."""

import json
import shutil

import numpy as np
import pytest
import torch

from crossguard.attacks.base import Attack
from crossguard.evaluate import evaluate
from crossguard.evaluate.tasks import grounding as task_module
from crossguard.models import attention_maps, enlarge
from crossguard.runs import RunFolder
from crossguard.threat import LInf, ThreatModel, WordEdits
from fusion_models import make_blip
from grounding_models import LAYER, make_expressions, make_grounder

THREAT = ThreatModel(image=LInf(eps=128 / 255), text=WordEdits(words=1))


def signs(seed):
    """One sign per patch and channel."""
    drawn = torch.randint(0, 2, (3, 3, 3), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return drawn.repeat_interleave(8, 1).repeat_interleave(8, 2)


class Signs(Attack):
    """Random signs by image id and patch, and "cross" for the first word."""

    name = "signs"
    uses = frozenset({"image", "text"})
    calls = 0

    def run(self, model, batch, *, budget, seed):
        type(self).calls += 1
        pixels = batch.pixels.clone()
        for row, image in enumerate(batch.image_ids.tolist()):
            pixels[row] += budget.eps * signs(1000 * seed + image)
        texts = [" ".join(["cross", *text.split()[1:]]) for text in batch.texts]
        return pixels.clamp(0, 1), tuple(texts) if budget.words else batch.texts


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_grounder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_expressions(tmp_path_factory.mktemp("data"))


def measure(model, data, **options):
    return evaluate(model, data, **{"layer": LAYER, "batch_size": 2, **options})


def by_hand(model, data, sample, pixels, text):
    """One expression alone: the enlarged map, every proposal's pixels, overlap by areas."""
    states = model.encode_image_states(pixels[None]), model.encode_text_states([text])
    height, width = data.sizes[data.image_of[sample]]
    small = attention_maps(model, *states, torch.tensor([[0, 0]]), layer=LAYER)
    large = enlarge(small.double(), height=int(height), width=int(width))[0]
    best, answer = 0.0, None
    for left, top, wide, tall in data.proposals[data.image_of[sample]]:
        score = float(large[int(top) : int(top + tall), int(left) : int(left + wide)].sum()) / (wide * tall) ** 0.5
        if score > best:
            best, answer = score, [left, top, wide, tall]
    if answer is None:
        return None, 0.0
    x, t, w, h = data.boxes[sample]
    across = max(0, min(x + w, answer[0] + answer[2]) - max(x, answer[0]))
    down = max(0, min(t + h, answer[1] + answer[3]) - max(t, answer[1]))
    shared = across * down
    return answer, shared / (w * h + answer[2] * answer[3] - shared)


def test_clean_rows_equal_every_expression_done_by_hand(model, data):
    result = measure(model, data)
    pixels = model.preprocess([data.image(i) for i in range(len(data.images))])
    for sample, row in enumerate(result.rows):
        box, iou = by_hand(model, data, sample, pixels[data.image_of[sample]], data.texts[sample])
        assert row["clean_box"] == box
        assert row["clean_iou"] == pytest.approx(iou, abs=1e-9)
        assert (row["index"], row["key"], row["text"]) == (sample, data.keys[sample], data.texts[sample])
        assert (row["robust_box"], row["robust_iou"], row["adversarial_text"]) == (None, None, None)
    assert result.clean["accuracy"] == 100 * np.mean([row["clean_iou"] >= 0.5 for row in result.rows])
    assert (result.robust, result.success) == (None, None)
    assert 0 < result.clean["accuracy"] < 100  # the data tell right from wrong
    ceiling = result.figure("ceiling", "accuracy")
    assert ceiling.value == 100 * np.mean([row["best_iou"] >= 0.5 for row in result.rows])
    assert "does not move them" in result.notes[0]


def test_attacked_rows_equal_expressions_done_by_hand(model, data):
    result = measure(model, data, attack=Signs(), threat=THREAT, seed=5)
    pixels = model.preprocess([data.image(i) for i in range(len(data.images))])
    changed = 0
    for sample, row in enumerate(result.rows):
        image = int(data.image_of[sample])
        moved = ((pixels[image] + 128 / 255 * signs(5000 + image)).clamp(0, 1) * 255).round() / 255
        text = " ".join(["cross", *data.texts[sample].split()[1:]])
        box, iou = by_hand(model, data, sample, moved, text)
        assert (row["robust_box"], row["adversarial_text"], row["words"]) == (box, text, 1)
        assert row["robust_iou"] == pytest.approx(iou, abs=1e-9)
        assert 0 < row["linf"] <= 128 / 255 + 1e-6
        changed += row["robust_box"] != row["clean_box"]
    assert changed
    right = [row["clean_iou"] >= 0.5 for row in result.rows]
    lost = [r and row["robust_iou"] < 0.5 for r, row in zip(right, result.rows, strict=True)]
    assert result.success["conditional"]["accuracy"] == pytest.approx(100 * sum(lost) / sum(right))
    assert result.success["drop"]["accuracy"] == result.clean["accuracy"] - result.robust["accuracy"]
    figure = result.figure("robust", "accuracy")
    assert (figure.interval, figure.n, figure.groups) == (None, 4, len({r["image"] for r in result.rows}))
    assert set(figure.by_group) == {r["image"] for r in result.rows}


def test_modalities_touch_what_they_say_and_share_clean_answers(model, data):
    result = measure(model, data, attack=Signs(), threat=THREAT, modalities=True)
    assert result.parts == ("image", "text", "joint")
    parts = {part: result.of(part) for part in result.parts}
    assert all(row["words"] == 0 and row["linf"] > 0 for row in parts["image"].rows)
    assert all(row["words"] == 1 and row["linf"] == 0 for row in parts["text"].rows)
    assert len({json.dumps([row["clean_box"] for row in part.rows]) for part in parts.values()}) == 1
    joint = measure(model, data, attack=Signs(), threat=THREAT)
    assert joint.rows == parts["joint"].rows


@pytest.mark.parametrize("attack", ["pgd", "word-swap", "sga", "adaptive"])
def test_attacks_of_the_table(model, data, attack):
    threat = {"pgd": THREAT.only("image"), "word-swap": THREAT.only("text")}.get(attack, THREAT)
    options = {} if attack == "word-swap" else {"steps": 5 if attack == "adaptive" else 2}
    result = measure(model, data, attack=attack, threat=threat, attack_options=options)
    assert all(row["linf"] <= 128 / 255 + 1e-6 and row["words"] <= 1 for row in result.rows)
    assert any(row["linf"] > 0 for row in result.rows) == (attack != "word-swap")


def test_maps_that_point_nowhere_are_misses(model, data, monkeypatch):
    real = attention_maps

    def zero_for_the_first(*arguments, **options):
        maps = real(*arguments, **options).clone()
        maps[0] = 0
        return maps

    monkeypatch.setattr(task_module, "attention_maps", zero_for_the_first)
    result = measure(model, data)
    assert (result.rows[0]["clean_box"], result.rows[0]["clean_iou"]) == (None, 0.0)
    nowhere = 25.0 * sum(row["clean_box"] is None for row in result.rows)
    assert result.figure("pointless clean", "accuracy").value == nowhere


def test_blip_grounds_too(data, tmp_path):
    result = measure(make_blip(tmp_path), data, layer=1, attack="pgd", threat=THREAT.only("image"))
    assert len(result.rows) == 4


def open_run(folder):
    return RunFolder.open(folder, settings={"task": "grounding"}, seed=0)


def test_a_run_goes_on_where_it_stopped(model, data, tmp_path, monkeypatch):
    whole = measure(model, data, attack=Signs(), threat=THREAT, batch_size=1)
    Signs.calls = 0

    class Stopped(Exception):
        pass

    def stop_in_the_second_batch(self, images, device):
        if images[0] == 1:
            raise Stopped
        return load(self, images, device)

    load = task_module.Grounding.load_batch
    monkeypatch.setattr(task_module.Grounding, "load_batch", stop_in_the_second_batch)
    with open_run(tmp_path / "run") as run, pytest.raises(Stopped):
        measure(model, data, attack=Signs(), threat=THREAT, batch_size=1, run=run)
    assert len((tmp_path / "run" / "rows.jsonl").read_text().splitlines()) == 3  # the expressions about image 0
    monkeypatch.setattr(task_module.Grounding, "load_batch", load)
    with open_run(tmp_path / "run") as run:
        result = measure(model, data, attack=Signs(), threat=THREAT, batch_size=1, run=run)
        again = measure(model, data, attack=Signs(), threat=THREAT, batch_size=1, run=run)
    assert Signs.calls == 2
    assert list(result.rows) == list(again.rows) == [{**row} for row in whole.rows]
    assert len((tmp_path / "run" / "rows.jsonl").read_text().splitlines()) == 4
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]["grounding/albef/joint"]
    assert (summary["about"]["samples"], summary["layer"]) == ("4 expressions about 2 images", LAYER)
    assert summary["estimates"]["clean"]["accuracy"]["value"] == whole.clean["accuracy"]
    assert again.figures == whole.figures
    assert len(again.examples) == len(summary["examples"]) > 0
    for one, other in zip(again.examples, whole.examples, strict=True):
        assert one.to_dict() == other.to_dict()
        for item, its in zip(one.items, other.items, strict=True):
            assert item.picture is None or np.array_equal(item.picture, its.picture)
    for folder in ("", "adversarial"):  # also once the adversarial pictures are deleted to free space
        if folder:
            shutil.rmtree(tmp_path / "run" / folder)
        with open_run(tmp_path / "run") as run, pytest.raises(ValueError, match="`layer` is 3 there and 2 now"):
            measure(model, data, attack=Signs(), threat=THREAT, batch_size=1, run=run, layer=2)


def test_examples_show_both_sides(model, data):
    result = measure(model, data, attack=Signs(), threat=THREAT, examples=1)
    (example,) = result.examples
    said = example.asked
    row = next(row for row in result.rows if row["text"] == said[0].text)
    assert (said[1].text, said[1].source) == (row["adversarial_text"], row["text"])
    assert row["clean_iou"] >= 0.5
    (before,), (after,) = example.answers.values()
    assert (before.right, after.right) == (True, row["robust_iou"] >= 0.5)
    assert before.picture.shape == after.picture.shape
    assert (before.picture != after.picture).any()
    assert measure(model, data, examples=0).examples == ()


class TestMistakes:
    def test_models(self, model, data, tiny_clip, tmp_path, unchecked):
        with pytest.raises(TypeError, match="shows where it looks.*CLIP does not"):
            measure(tiny_clip, data)
        with pytest.raises(ValueError, match=r"fusion layer in \[2, 5\), but got 9"):
            measure(model, data, layer=9)
        cropping = make_grounder(tmp_path)
        cropping.pixel_rule = tiny_clip.pixel_rule
        with pytest.raises(ValueError, match="crops the centre"):
            measure(cropping, data)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"threat": THREAT}, "`attack` is None"),
            ({"attack": "pgd"}, "what attack 'pgd' may do"),
            ({"attack": "pgd", "threat": THREAT}, "one for text"),
            ({"attack": Signs(), "threat": ThreatModel(target="query", image=LInf(eps=0.1))}, "no queries"),
            ({"batch_size": 0}, "`batch_size` to be a whole number >= 1"),
            ({"attack": Signs(), "threat": THREAT, "attack_options": {"steps": 1}}, "given by its name"),
        ],
    )
    def test_arguments(self, model, data, options, message):
        with pytest.raises(ValueError, match=message):
            measure(model, data, **options)
