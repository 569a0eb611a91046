"""Adversarial sets on the disk, and their way to another model."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from crossguard.attacks import load_adversarial, make_attack, save_adversarial
from crossguard.threat import LInf, ThreatModel, WordEdits
from shared import make_clip

JOINT = ThreatModel(image=LInf(4 / 255), text=WordEdits(1))


@pytest.fixture(scope="module")
def found(toy_batch):
    return make_attack("sga", steps=2, scales=(0.5,))(make_clip(), toy_batch, threat=JOINT, seed=0)


def keep(folder, toy_pairs, toy_batch, found, threat=JOINT):
    return save_adversarial(
        folder, [(toy_batch, found)], pairs=toy_pairs, threat=threat, model="tiny", attack="sga", seed=0
    )


@pytest.fixture
def saved(tmp_path, toy_pairs, toy_batch, found):
    return keep(tmp_path / "set", toy_pairs, toy_batch, found)


def test_what_was_saved_comes_back_and_keeps_its_budget(saved, toy_pairs, toy_batch, found):
    back = load_adversarial(saved)
    assert back.threat == JOINT
    assert back.made["data"] == toy_pairs.name
    assert back.keys == tuple(picture.key for picture in toy_pairs.images[:8])
    assert [back.texts[text] for text in toy_batch.texts] == list(found.texts)
    clean, adversarial = back.pictures([5, 2])
    assert torch.equal(torch.from_numpy(clean).float() / 255, toy_batch.pixels[[5, 2]])
    assert torch.equal(torch.from_numpy(adversarial).float() / 255, found.pixels[[5, 2]])


def test_the_attack_gives_the_set_again_also_to_another_model(saved, toy_batch, found):
    attack = make_attack("saved", folder=saved)
    other = attack(make_clip(seed=5), toy_batch, threat=JOINT, seed=3)
    assert torch.equal(other.pixels, found.pixels)
    assert other.texts == found.texts
    image_only = attack(make_clip(), toy_batch, threat=JOINT.only("image"), seed=0)
    assert image_only.texts == toy_batch.texts
    text_only = attack(make_clip(), toy_batch, threat=JOINT.only("text"), seed=0)
    assert torch.equal(text_only.pixels, toy_batch.pixels)


def test_changes_are_carried_over_to_another_size_within_budget(saved, toy_pairs, toy_batch, found):
    larger = larger_clip()
    batch = batch_of(larger, toy_pairs, toy_batch)
    with pytest.raises(ValueError, match="set `resize`"):
        make_attack("saved", folder=saved).check(larger, toy_pairs.head(8), JOINT)
    attack = make_attack("saved", folder=saved, resize=True)
    attack.check(larger, toy_pairs.head(8), JOINT)
    carried = attack(larger, batch, threat=JOINT, seed=0)
    assert carried.texts == found.texts
    assert 0 < float(carried.linf.max()) <= 4 / 255 + 1e-6
    change = carried.pixels - batch.pixels
    small = torch.nn.functional.interpolate(change, size=(16, 16), mode="area")
    source = found.pixels - toy_batch.pixels
    assert torch.corrcoef(torch.stack([small.flatten(), source.flatten()]))[0, 1] > 0.6
    # Other pictures than the set's are refused.
    mixed = batch_of(larger, toy_pairs, toy_batch, order=[7, 6, 5, 4, 3, 2, 1, 0])
    with pytest.raises(ValueError, match="Expected the pictures that the set"):
        attack(larger, mixed, threat=JOINT, seed=0)


def larger_clip():
    from crossguard.models import CLIP
    from shared import word_tokenizer

    sizes = {"patch_size": 8, "vision_width": 32, "vision_layers": 1, "text_width": 32, "text_layers": 1}
    return CLIP.from_sizes(word_tokenizer(), image_size=24, context_length=16, embed_dim=16, seed=1, **sizes)


def batch_of(model, pairs, batch, order=range(8)):
    from crossguard.data import PairBatch

    pixels = model.preprocess([pairs.image(i) for i in order])
    return PairBatch(pixels, batch.texts, batch.links, batch.image_ids, batch.text_ids)


def test_other_data_is_refused(saved, toy_pairs, toy_batch):
    attack = make_attack("saved", folder=saved)
    with pytest.raises(ValueError, match="Expected the data that the set"):
        attack.check(make_clip(), toy_pairs, JOINT)  # the set holds the first 8 of 24
    renamed = (*toy_batch.texts[:-1], "a text that nobody attacked")
    batch = type(toy_batch)(toy_batch.pixels, renamed, toy_batch.links, toy_batch.image_ids, toy_batch.text_ids)
    with pytest.raises(ValueError, match="'a text that nobody attacked' is not in it"):
        attack(make_clip(), batch, threat=JOINT, seed=0)
    brighter = (toy_batch.pixels + 8 / 255).clamp(0, 1)
    batch = type(toy_batch)(brighter, toy_batch.texts, toy_batch.links, toy_batch.image_ids, toy_batch.text_ids)
    with pytest.raises(ValueError, match="Expected the clean pictures"):
        attack(make_clip(), batch, threat=JOINT, seed=0)


@pytest.mark.parametrize(
    "threat", [ThreatModel(image=LInf(8 / 255)), ThreatModel(image=LInf(2 / 255)), ThreatModel(text=WordEdits(2))]
)
def test_another_budget_is_refused(saved, toy_batch, toy_pairs, threat):
    attack = make_attack("saved", folder=saved)
    with pytest.raises(ValueError, match="Expected the threat model that the set"):
        attack(make_clip(), toy_batch, threat=threat, seed=0)
    with pytest.raises(ValueError, match="Expected the threat model that the set"):
        attack.check(make_clip(), toy_pairs.head(8), threat)


def test_texts_alone_go_to_a_model_of_any_size(tmp_path, toy_pairs, toy_batch):
    threat = JOINT.only("text")
    found = make_attack("word-swap")(make_clip(), toy_batch, threat=threat, seed=0)
    folder = keep(tmp_path / "texts", toy_pairs, toy_batch, found, threat)
    assert not (folder / "adversarial").exists()
    larger = larger_clip()
    attack = make_attack("saved", folder=folder)
    attack.check(larger, toy_pairs.head(8), threat)
    assert attack(larger, batch_of(larger, toy_pairs, toy_batch), threat=threat, seed=0).texts == found.texts


def test_budgets_are_checked_again_when_a_set_is_read(saved, toy_batch):
    path = saved / "adversarial" / "000003.png"
    picture = np.asarray(Image.open(path)).copy()
    picture[0, 0, 0] = (int(picture[0, 0, 0]) + 128) % 256
    Image.fromarray(picture).save(path)
    attack = make_attack("saved", folder=saved)
    with pytest.raises(ValueError, match="image 3 is 1[0-9]+ grey levels away"):
        attack(make_clip(), toy_batch, threat=JOINT, seed=0)
    lines = (saved / "texts.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows[0]["adversarial"] = "something else altogether"
    (saved / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="Expected texts within 1 word"):
        load_adversarial(saved)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "Expected an adversarial set"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "Expected an adversarial set"),
        (lambda folder: (folder / "texts.jsonl").write_text(""), "tells of 20 texts"),
        (lambda folder: rewrite(folder, schema=99), "layout 99"),
        (lambda folder: rewrite(folder, threat={"image": {"type": "l-infinite"}}), "did you mean 'l-inf'"),
    ],
)
def test_damaged_sets_are_refused(saved, damage, message):
    damage(saved)
    with pytest.raises(ValueError, match=message):
        load_adversarial(saved)


def rewrite(folder, **changes):
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


def test_a_missing_or_foreign_picture_is_refused(saved):
    (saved / "clean" / "000001.png").unlink()
    Image.new("L", (16, 16)).save(saved / "clean" / "000002.png")
    whole = load_adversarial(saved)
    for image in (1, 2):
        with pytest.raises(ValueError, match="Expected a picture of an adversarial set"):
            whole.pictures([image])
    with pytest.raises(ValueError, match="but got image 20"):
        whole.pictures([0, 20])


def test_nothing_is_written_over_and_nothing_half_written(tmp_path, toy_pairs, toy_batch, found):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something"):
        keep(tmp_path / "taken", toy_pairs, toy_batch, found)
    with pytest.raises(ValueError, match="within L-inf 1/255"):  # the attack had four grey levels
        keep(tmp_path / "wrong", toy_pairs, toy_batch, found, ThreatModel(image=LInf(1 / 255), text=WordEdits(1)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]
