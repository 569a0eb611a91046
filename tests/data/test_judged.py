"""Judged links of ECCV Caption and CxC beside COCO's own, and both readings of retrieval."""

import json

import numpy as np
import pytest
import torch

import crossguard as cg
from crossguard.evaluate.retrieval import retrieval_ranks
from shared import COLOURS, draw, fit_clip

CAPTIONS = {11: "a red disc", 12: "a bright red shape", 21: "a green disc", 31: "a blue disc", 41: "a yellow disc"}
OF = {11: 5, 12: 5, 21: 17, 31: 23, 41: 42}


@pytest.fixture
def coco(tmp_path):
    """Four pictures as COCO names them, Karpathy's rows, and COCO's numbered captions."""
    (tmp_path / "val2014").mkdir()
    rows = []
    for number, colour in zip((5, 17, 23, 42), COLOURS, strict=True):
        name = f"val2014/COCO_val2014_{number:012d}.jpg"
        draw(colour, "disc", "left").save(tmp_path / name)
        rows.append({"image": name, "caption": [CAPTIONS[c] for c, i in OF.items() if i == number]})
    (tmp_path / "coco_test.json").write_text(json.dumps(rows))
    numbered = [{"id": c, "image_id": OF[c], "caption": f"{text} \n"} for c, text in CAPTIONS.items()]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "captions_val2014.json").write_text(json.dumps({"annotations": numbered}))
    (tmp_path / "eccv_image_to_caption.json").write_text(json.dumps({"17": [21, 31], "99": [11]}))
    (tmp_path / "eccv_caption_to_image.json").write_text(json.dumps({"12": [5, 42], "31": [23]}))
    sits = ["caption,image,agg_score,sampling_method"]
    sits += [
        f"COCO_val2014:sentid:{c},COCO_val2014_{i:012d}.jpg,{score},c2i"
        for c, i, score in ((41, 23, 3.0), (41, 5, 2.99))
    ]
    (tmp_path / "sits_test.csv").write_text("\n".join(sits) + "\n")
    return tmp_path


def named(pairs):
    return {(pairs.images[i].key[-6:-4], pairs.texts[j]) for i, j in pairs.links.tolist()}


def test_links_of_both_files_and_both_directions(coco):
    own = cg.load_pairs("coco", root=coco, split="test")
    files = [coco / "eccv_image_to_caption.json", coco / "eccv_caption_to_image.json"]
    pairs = cg.load_pairs("coco", root=coco, split="test", judged=files)
    assert named(pairs) - named(own) == {("17", "a blue disc"), ("42", "a bright red shape")}
    assert np.array_equal(pairs.own_links, own.links)
    assert "2 judged links beside 5 of the data's own" in pairs.notes[-1]
    assert "1 of other pictures or captions are left out" in pairs.notes[-1]
    rated = cg.load_pairs("coco", root=coco, split="test", judged=coco / "sits_test.csv")
    assert named(rated) - named(own) == {("23", "a yellow disc")}


@torch.no_grad()
def test_both_readings_are_told(coco):
    pairs = cg.load_pairs("coco", root=coco, split="test", judged=[coco / "eccv_image_to_caption.json"])
    model = fit_clip(pairs)
    result = cg.evaluate(model, pairs, attack="pgd", threat=cg.ThreatModel(image=cg.LInf(8 / 255)))
    pixels = model.preprocess([pairs.image(i) for i in range(len(pairs.images))])
    units = [
        torch.nn.functional.normalize(x, dim=-1)
        for x in (model.encode_image(pixels), model.encode_text(list(pairs.texts)))
    ]
    for key, links in (("clean_rank", pairs.links), ("own_clean_rank", pairs.own_links)):
        ranks = torch.cat(retrieval_ranks(units[0] @ units[1].T, torch.tensor(links)))
        assert [row[key] for row in result.rows] == ranks.tolist()
    assert all(row["own_robust_rank"] >= row["robust_rank"] for row in result.rows)
    note = next(note for note in result.outcomes[0].notes if "own links alone" in note)
    own = 100 * np.mean([row["own_clean_rank"] == 1 for row in result.rows if row["direction"] == "tr"])
    assert f"tr@1 {own:.1f} -> " in note
    clean = cg.evaluate(model, pairs)
    assert any("own links alone, by cosine: tr@1" in note for note in clean.outcomes[0].notes)
    assert "own_robust_rank" not in clean.rows[0]


def test_other_files_are_refused(coco):
    (coco / "links.json").write_text("{}")
    with pytest.raises(ValueError, match="named as ECCV Caption's .*links.json"):
        cg.load_pairs("coco", root=coco, split="test", judged=coco / "links.json")
    (coco / "eccv_caption_to_image.json").write_text('{"7": [99]}')
    with pytest.raises(ValueError, match="none of the 1 in"):
        cg.load_pairs("coco", root=coco, split="test", judged=coco / "eccv_caption_to_image.json")
    (coco / "eccv_caption_to_image.json").write_text("[1]")
    with pytest.raises(ValueError, match="Expected judged links in"):
        cg.load_pairs("coco", root=coco, split="test", judged=coco / "eccv_caption_to_image.json")
    (coco / "annotations" / "captions_val2014.json").unlink()
    with pytest.raises(ValueError, match="numbered captions"):
        cg.load_pairs("coco", root=coco, split="test", judged=coco / "sits_test.csv")
