"""An evaluation's adversarial set on the disk, and the transfer of it to another model."""

import pytest

import crossguard as cg
from crossguard.attacks import load_adversarial, save_adversarial
from crossguard.runs import RunFolder
from shared import make_clip

THREAT = cg.ThreatModel(image=cg.LInf(8 / 255), text=cg.WordEdits(1))
QUICK = {"attack": "sga", "attack_options": {"steps": 2, "scales": (0.5,)}, "threat": THREAT, "batch_size": 8}


def test_a_set_made_on_one_model_is_judged_again_and_on_another(tmp_path, toy_pairs):
    folder = tmp_path / "set"
    made = cg.evaluate(make_clip(1), toy_pairs, **QUICK, save_to=folder)
    held = load_adversarial(folder)
    assert len(held.image_ids) == len(toy_pairs.images)
    assert set(held.texts) == set(toy_pairs.texts)
    assert held.made["model"] == "tiny"
    assert held.made["attack"] == "sga"

    again = cg.evaluate(make_clip(1), toy_pairs, attack="saved", attack_options={"folder": folder})
    assert again.robust == made.robust
    assert [row["adversarial_text"] for row in again.rows] == [row["adversarial_text"] for row in made.rows]
    assert again.settings["threat"] == THREAT.to_dict()

    # Batches may be cut in another way: the set is looked up, not computed.
    other = [
        cg.evaluate(make_clip(2), toy_pairs, attack="saved", attack_options={"folder": str(folder)}, batch_size=n)
        for n in (4, 24)
    ]
    assert other[0].robust == other[1].robust
    own = cg.evaluate(make_clip(2), toy_pairs, **QUICK)
    fall = {name: r.clean["ir@5"] - r.robust["ir@5"] for name, r in (("transfer", other[0]), ("own", own))}
    assert fall["transfer"] < fall["own"]


def test_each_part_of_the_threat_has_its_own_set(tmp_path, toy_pairs):
    cg.evaluate(make_clip(1), toy_pairs, **QUICK, modalities=True, save_to=tmp_path / "sets")
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == ["image", "joint", "text"]
    assert load_adversarial(tmp_path / "sets" / "text").threat == THREAT.only("text")


def test_a_finished_run_still_gives_its_set(tmp_path, toy_pairs):
    run = {"settings": {}, "seed": 0, "device": "cpu"}
    with RunFolder.open(tmp_path / "run", **run) as opened:
        cg.evaluate(make_clip(1), toy_pairs, **QUICK, run=opened)
        cg.evaluate(make_clip(1), toy_pairs, **QUICK, run=opened, save_to=tmp_path / "set")
        before = (tmp_path / "set" / "manifest.json").stat().st_mtime_ns
        cg.evaluate(make_clip(1), toy_pairs, **QUICK, run=opened, save_to=tmp_path / "set")
    assert (tmp_path / "set" / "manifest.json").stat().st_mtime_ns == before
    assert len(load_adversarial(tmp_path / "set").image_ids) == len(toy_pairs.images)


def test_what_cannot_work_is_refused_before_any_work(tmp_path, toy_pairs, monkeypatch):
    cg.evaluate(make_clip(1), toy_pairs.head(8), **QUICK, save_to=tmp_path / "set")
    monkeypatch.setattr("crossguard.models.CLIP.encode_image", lambda *_: pytest.fail("worked"))
    saved = {"attack": "saved", "attack_options": {"folder": tmp_path / "set"}}
    with pytest.raises(ValueError, match="Expected the data that the set"):
        cg.evaluate(make_clip(1), toy_pairs, **saved)
    with pytest.raises(ValueError, match="Expected the threat model that the set"):
        cg.evaluate(make_clip(1), toy_pairs.head(8), **saved, threat=cg.ThreatModel(image=cg.LInf(2 / 255)))
    with pytest.raises(ValueError, match="Expected an attack whose findings"):
        cg.evaluate(make_clip(1), toy_pairs, save_to=tmp_path / "clean")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(ValueError, match="holds something"):
        cg.evaluate(make_clip(1), toy_pairs, **QUICK, save_to=tmp_path / "taken")


def test_a_set_of_another_attack_is_not_written_over(tmp_path, toy_pairs):
    cg.evaluate(make_clip(1), toy_pairs.head(8), **QUICK, save_to=tmp_path / "set")
    with pytest.raises(ValueError, match="holds that of another attack"):
        cg.evaluate(make_clip(1), toy_pairs.head(8), **QUICK, seed=1, save_to=tmp_path / "set")


def test_budgets_that_a_set_cannot_keep_are_refused_before_work(tmp_path, toy_pairs, monkeypatch):
    def work(*_):
        raise AssertionError

    model, threat = make_clip(1), cg.ThreatModel(image=cg.Elements(1), text=cg.WordEdits(1))
    monkeypatch.setattr(type(model), "encode_image", work)
    refusal = pytest.raises(ValueError, match="Expected a budget of 'image' that an adversarial set can keep, LInf")
    with refusal:
        cg.evaluate(model, toy_pairs, attack="sparse", threat=threat, save_to=tmp_path / "set")
    with refusal:
        save_adversarial(tmp_path / "set", [], pairs=toy_pairs, threat=threat, model="tiny", attack="sparse", seed=0)
    assert not (tmp_path / "set").exists()
