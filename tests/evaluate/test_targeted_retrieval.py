"""Attacks towards a chosen caption or picture: whom they move, when they succeed, and what is refused."""

import numpy as np
import pytest
import torch

import crossguard as cg
from crossguard.data import OneToManyPairs
from crossguard.models import cosine
from families import make_albef
from shared import fit_clip, make_clip

IMAGES = cg.ThreatModel(image=cg.LInf(48 / 255), target="query")
WORDS = cg.ThreatModel(text=cg.WordEdits(1), target="query")


def pick_text(pairs):
    """A text of one picture alone."""
    return next(text for j, text in enumerate(pairs.texts) if len(pairs.images_of(j)) == 1)


def slow_ranks(model, queries, gallery, place):
    """By hand: how many others are at least as near as the chosen one."""
    with torch.no_grad():
        scores = cosine(queries, gallery)
    return [1 + sum(float(s) >= float(row[place]) for i, s in enumerate(row) if i != place) for row in scores]


@pytest.mark.parametrize("attack", ["pgd", "apgd", "apgd-ce", "auto-attack"])
def test_pictures_are_moved_towards_a_caption(toy_pairs, tmp_path, attack):
    model, text = fit_clip(toy_pairs), pick_text(toy_pairs)
    options = {"auto-attack": {"steps": 10, "queries": 20, "targets": 1}}.get(attack, {"steps": 10})
    result = cg.evaluate(
        model, toy_pairs, attack=attack, attack_options=options, threat=IMAGES, target_text=text, save_to=tmp_path / "s"
    )
    owners = set(toy_pairs.images_of(toy_pairs.texts.index(text)).tolist())
    moved = [row for row in result.rows if row["direction"] == "tr"]
    asked = [row for row in moved if "robust_target_rank" in row]
    assert {row["index"] for row in moved} - {row["index"] for row in asked} == owners
    assert all(row["linf"] == 0 for row in moved if row["index"] in owners)
    assert not any("robust_target_rank" in row for row in result.rows if row["direction"] == "ir")
    before, after = (np.mean([row[f"{s}_target_rank"] == 1 for row in asked]) for s in ("clean", "robust"))
    figures = {figure.metric: figure.value for figure in result.figures if figure.what == "target"}
    assert list(figures) == ["tr@1", "tr@5", "tr@10"]
    assert figures["tr@1"] == pytest.approx(100 * after)
    assert after >= before
    ranks = {side: sum(row[f"{side}_target_rank"] for row in asked) for side in ("clean", "robust")}
    assert ranks["robust"] < 0.9 * ranks["clean"]
    assert any(f"by {round(after * len(asked))} of {len(asked)}, without attack by" in note for note in result.notes)
    plain = model.encode_text(toy_pairs.texts)
    found = cg.evaluate(model, toy_pairs, attack="saved", attack_options={"folder": tmp_path / "s"})
    place = toy_pairs.texts.index(text)
    clean = slow_ranks(model, model.encode_image(all_pixels(model, toy_pairs)), plain, place)
    assert [row["clean_target_rank"] for row in asked] == [clean[row["index"]] for row in asked]
    assert [r["robust_rank"] for r in found.rows] == [r["robust_rank"] for r in result.rows]


def all_pixels(model, pairs):
    return model.preprocess([pairs.image(i) for i in range(len(pairs.images))])


def test_captions_are_moved_towards_a_picture(toy_pairs):
    model, key = make_clip(1), toy_pairs.images[3].key
    result = cg.evaluate(
        model,
        toy_pairs,
        attack="word-swap",
        attack_options={"source": {"name": "characters"}, "order": "all"},
        threat=WORDS,
        target_image=key,
    )
    asked = [row for row in result.rows if row.get("robust_target_rank") is not None]
    assert {row["direction"] for row in asked} == {"ir"}
    assert {row["index"] for row in asked}.isdisjoint(toy_pairs.texts_of(3).tolist())
    with torch.no_grad():
        images = model.encode_image(all_pixels(model, toy_pairs))
        robust = slow_ranks(model, model.encode_text([row["adversarial_text"] for row in asked]), images, 3)
        clean = slow_ranks(model, model.encode_text([row["query"] for row in asked]), images, 3)
    assert [row["clean_target_rank"] for row in asked] == clean
    assert [row["robust_target_rank"] for row in asked] == robust
    assert sum(robust) < sum(clean)
    assert all(row["words"] <= 1 for row in asked)


def test_texts_that_the_model_reads_alike_are_one_target():
    model = make_clip(1)
    pictures = [torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    texts = ["a red disc", "a  red disc", "a blue cross", "a green square", "a small shape", "a yellow disc"]
    images = [to_image(p) for p in pictures]
    pairs = cg.as_pairs(list(zip(images, texts, strict=True)))
    assert isinstance(pairs, OneToManyPairs)
    result = cg.evaluate(
        model, pairs, attack="apgd", threat=cg.ThreatModel(image=cg.LInf(1.0), target="query"), target_text="a red disc"
    )
    asked = [row for row in result.rows if row.get("robust_target_rank") is not None]
    assert [row["index"] for row in asked] == [2, 3, 4, 5]  # 0 and 1 own it
    assert min(row["robust_target_rank"] for row in asked) == 1  # its twin does not tie with it


def to_image(pixels):
    from PIL import Image

    return Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy())


def test_fusion_models_are_moved_by_match_and_cosine(toy_pairs, tmp_path):
    model, text, few = make_albef(tmp_path), pick_text(toy_pairs), toy_pairs.head(8)
    clean = {}
    for aimed in few.texts[:6]:
        result = cg.evaluate(model, few, attack="pgd", threat=IMAGES, attack_options={"steps": 10}, target_text=aimed)
        asked = [row for row in result.rows if row.get("robust_target_rank") is not None]
        clean[aimed] = [sum(row[f"{side}_target_rank"] for row in asked) for side in ("clean", "robust")]
    assert sum(robust for _, robust in clean.values()) < sum(before for before, _ in clean.values())
    key = few.images[2].key
    result = cg.evaluate(
        model, few, attack="word-swap", attack_options={"source": "characters"}, threat=WORDS, target_image=key
    )
    asked = [row for row in result.rows if row.get("robust_target_rank") is not None]
    assert sum(r["robust_target_rank"] for r in asked) <= sum(r["clean_target_rank"] for r in asked)
    with pytest.raises(ValueError, match=r"aims by likelihoods \(pgd, apgd\)"):
        cg.evaluate(model, toy_pairs, attack="apgd-ce", threat=IMAGES, target_text=text)


def test_a_targeted_run_resumes_and_another_target_is_refused(toy_pairs, tmp_path):
    model, (first, second) = make_clip(1), toy_pairs.texts[:2]
    how = {"attack": "pgd", "threat": IMAGES, "run": tmp_path / "run"}
    done = cg.evaluate(model, toy_pairs, target_text=first, **how)
    again = cg.evaluate(model, toy_pairs, target_text=first, **how)
    assert [dict(row) for row in again.rows] == [dict(row) for row in done.rows]
    with pytest.raises(ValueError, match="target_text"):
        cg.evaluate(model, toy_pairs, target_text=second, **how)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target_text": "no such text"}, "one of the .* texts .*'no such text'"),
        ({"target_image": "nowhere.png", "threat": WORDS, "attack": "word-swap"}, "`target_image` to be the key"),
        ({"threat": cg.ThreatModel(image=cg.LInf(0.1))}, "target='query' in the threat"),
        ({"attack": "adaptive"}, "can aim at a chosen text or image .*pgd.*word-swap.*'adaptive'"),
        ({"threat": WORDS, "attack": "word-swap"}, "budget of the image alone with `target_text`"),
        ({"target_image": "x"}, "one after the other, but got both"),
    ],
)
def test_what_cannot_be_reached_is_refused_before_any_work(toy_pairs, options, said):
    given = {"attack": "pgd", "threat": IMAGES, "target_text": toy_pairs.texts[0], **options}
    if "target_image" in options and options["target_image"] != "x":
        del given["target_text"]
    with pytest.raises(ValueError, match=said):
        cg.evaluate(make_clip(), toy_pairs, **given)


def test_an_attack_that_does_not_aim_refuses_a_chosen_item(tiny_clip, toy_batch):
    from crossguard.attacks import make_attack
    from crossguard.attacks.ranking import text_states
    from crossguard.attacks.towards import Chosen

    states = text_states(tiny_clip, list(toy_batch.texts))
    chosen = Chosen(states.embedding, torch.tensor([0]), torch.tensor([0]), lambda places: states)
    with pytest.raises(ValueError, match="'sga' does not aim"):
        make_attack("sga")(tiny_clip, toy_batch, threat=IMAGES, seed=0, chosen=chosen)
