"""`compat=True` is the published attack: the same texts and pixels as slow loops written from its description."""

import runpy
import warnings
from pathlib import Path

import pytest
import torch
from masked_lm_files import write_bert
from published_reference import co_attack_published, sga_published, swap_published

from crossguard.attacks import Characters, LInfBall, MaskedLM, make_attack
from crossguard.data import PairBatch
from crossguard.threat import LInf, ThreatModel, WordEdits
from families import FAMILIES
from shared import WORDS, make_clip, write_annotations

EPS = 8 / 255
THREAT = ThreatModel(image=LInf(EPS), text=WordEdits(2))
SGA = {"steps": 3, "step": 2 / 255, "scales": (0.5, 1.5), "noise": 0.05}
MODELS = ["clip", "siglip", "albef", "blip"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {name: FAMILIES[name](tmp_path_factory.mktemp(name)) for name in MODELS}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"), WORDS)


@pytest.fixture(params=["characters", "masked-lm"])
def source(request, bert):
    return Characters(limit=4) if request.param == "characters" else MaskedLM(model=bert, compat=True, min_logit=-9.0)


def first_pictures(model, toy_pairs, toy_batch, count=2):
    """A few pictures as the model sees them, with all their texts, some of them shared."""
    images = toy_batch.image_ids[:count]
    texts = toy_batch.positives[:count].any(dim=0).nonzero().squeeze(1)
    return PairBatch(
        model.preprocess([toy_pairs.image(int(i)) for i in images]),
        tuple(toy_batch.texts[j] for j in texts),
        toy_batch.positives[:count][:, texts].nonzero(),
        images,
        toy_batch.text_ids[texts],
    )


def differ(found, pixels, batch):
    """The share of pixels that differ, both on the 8-bit grid."""
    return float((found.pixels != LInfBall(batch.pixels, EPS).to_pixels(pixels)).float().mean())


@pytest.mark.parametrize("family", MODELS)
def test_word_swap_ranks_words_without_the_image(models, toy_pairs, toy_batch, source, family):
    model = models[family]
    batch = first_pictures(model, toy_pairs, toy_batch)
    found = make_attack("word-swap", source=source, compat=True)(model, batch, threat=THREAT.only("text"), seed=0)
    expected = [swap_published(model, batch, batch.pixels, j, words=2, source=source) for j in range(len(batch.texts))]
    assert list(found.texts) == expected
    assert sum(a != b for a, b in zip(expected, batch.texts, strict=True)) > len(expected) / 2


@pytest.mark.parametrize("family", MODELS)
def test_sga_is_the_loops_of_its_description(models, toy_pairs, toy_batch, source, family):
    model = models[family]
    batch = first_pictures(model, toy_pairs, toy_batch)
    found = make_attack("sga", source=source, compat=True, **SGA)(model, batch, threat=THREAT, seed=3)
    pixels, texts = sga_published(model, batch, eps=EPS, words=2, source=source, seed=3, **SGA)
    # A gradient of float32 noise around zero may change its sign with the shape of a matrix product.
    assert differ(found, pixels, batch) < 0.01
    assert list(found.texts) == texts


@pytest.mark.parametrize(
    ("family", "embedding"), [*((m, "unimodal") for m in MODELS), ("albef", "fusion"), ("blip", "fusion")]
)
def test_co_attack_is_the_loops_of_its_description(models, toy_pairs, toy_batch, source, family, embedding):
    model = models[family]
    batch = first_pictures(model, toy_pairs, toy_batch)
    attack = make_attack("co-attack", source=source, compat=True, steps=3, embedding=embedding)
    found = attack(model, batch, threat=THREAT, seed=3)
    pixels, texts = co_attack_published(
        model, batch, eps=EPS, words=2, source=source, steps=3, alpha=3.0, seed=3, embedding=embedding
    )
    assert list(found.texts) == texts
    assert differ(found, pixels, batch) < 0.01


@pytest.mark.parametrize("point", [{"noise_first": False}, {"ranked_by": "image"}])
def test_each_published_point_of_sga_matters(toy_pairs, toy_batch, point):
    """Else the comparison above could not tell the published form from ours."""
    model = make_clip(seed=1)
    batch = first_pictures(model, toy_pairs, toy_batch)
    source = Characters(limit=4)
    pixels, texts = sga_published(model, batch, eps=EPS, words=1, source=source, seed=3, **SGA)
    other, turned = sga_published(model, batch, eps=EPS, words=1, source=source, seed=3, **SGA, **point)
    assert float((pixels != other).float().mean()) > 0.03
    assert "ranked_by" not in point or texts != turned


@pytest.mark.parametrize(
    "point", [{"start": "both"}, {"unit_text_term": False}, {"words_by": "image"}, {"captions": "all"}]
)
def test_each_published_point_of_co_attack_matters(toy_pairs, toy_batch, point):
    model = make_clip(seed=1)
    batch = first_pictures(model, toy_pairs, toy_batch)
    options = {"eps": EPS, "words": 1, "source": Characters(limit=4), "steps": 3, "alpha": 3.0, "seed": 3}
    pixels, texts = co_attack_published(model, batch, **options)
    other, turned = co_attack_published(model, batch, **options, **point)
    assert float((pixels != other).float().mean()) > 0.03
    assert "words_by" not in point or texts != turned


@pytest.mark.parametrize("name", ["word-swap", "sep", "co-attack", "sga", "dra"])
def test_published_and_own_forms_differ_and_keep_the_budget(tiny_clip, toy_batch, name):
    options = {} if name == "word-swap" else {"steps": 3}
    threat = ThreatModel(image=LInf(EPS), text=WordEdits(1)).only(*sorted(make_attack(name).uses))
    ours, published = (
        make_attack(name, source="characters", compat=compat, **options)(tiny_clip, toy_batch, threat=threat, seed=0)
        for compat in (False, True)
    )
    assert published.texts != ours.texts
    assert int(published.words.max()) == 1
    assert float(published.linf.max()) <= EPS + 1e-6
    if name in ("co-attack", "sga", "dra"):
        assert not torch.equal(published.pixels, ours.pixels)


def test_sep_and_dra_are_made_of_the_published_parts(tiny_clip, toy_batch):
    source = Characters(limit=4)
    text = make_attack("word-swap", source=source, compat=True)(
        tiny_clip, toy_batch, threat=THREAT.only("text"), seed=0
    )
    image = make_attack("pgd", steps=3, keep_best=False)(tiny_clip, toy_batch, threat=THREAT.only("image"), seed=0)
    sep = make_attack("sep", steps=3, source=source, compat=True)(tiny_clip, toy_batch, threat=THREAT, seed=0)
    assert sep.texts == text.texts
    assert torch.equal(sep.pixels, image.pixels)
    dra = make_attack("dra", source=source, compat=True, draws=1)
    assert dra.sga.compat
    assert dra.sga.words.compat


def test_the_masked_lm_is_read_as_published_too_unless_told_otherwise(bert):
    given = {"name": "masked-lm", "model": str(bert)}
    assert make_attack("sga", source=given, compat=True).words.source.compat
    assert not make_attack("sga", source=given).words.source.compat
    assert not make_attack("co-attack", source=given | {"compat": False}, compat=True).words.source.compat
    assert make_attack("word-swap", compat=True).source.name == "thesaurus"


@pytest.mark.parametrize("options", [{"order": "all"}, {"ranking": "gradient"}, {"shortlist": 3}])
def test_options_that_the_published_attack_has_not_are_refused_with_it(options):
    with pytest.raises(ValueError, match="with compat=True, which repeats the published attack"):
        make_attack("word-swap", compat=True, **options)


def test_images_without_texts_and_texts_without_images_are_left_out(tiny_clip, toy_batch):
    links = toy_batch.links[toy_batch.links[:, 0] > 0]
    batch = PairBatch(toy_batch.pixels, toy_batch.texts, links, toy_batch.image_ids, toy_batch.text_ids)
    alone = [j for j in range(len(batch.texts)) if not batch.positives[:, j].any()]
    assert alone
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = make_attack("co-attack", source="characters", compat=True, steps=2)(
            tiny_clip, batch, threat=THREAT, seed=0
        )
    assert all(found.texts[j] == batch.texts[j] for j in alone)
    assert torch.isfinite(found.pixels).all()


@pytest.mark.slow
def test_the_benchmark_prints_both_forms_beside_the_papers(toy_pairs, bert, tmp_path, monkeypatch, capsys):
    script = Path(__file__).parents[2] / "benchmarks" / "published_attacks.py"
    make_clip(seed=1).save_pretrained(tmp_path / "clip")
    write_annotations(toy_pairs, tmp_path / "test.json")
    given = {
        "--model": tmp_path / "clip",
        "--annotations": tmp_path / "test.json",
        "--root": toy_pairs.images[0].path.parent,
        "--masked-lm": bert,
        "--images": 24,
        "--eps": 8,
        "--folder": tmp_path / "rows",
    }
    monkeypatch.setattr("sys.argv", [str(script), *(str(part) for pair in given.items() for part in pair)])
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    runpy.run_path(str(script), run_name="__main__")
    first = capsys.readouterr().out
    table = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in first.splitlines() if line.startswith("| `")}
    assert list(table) == ["`pgd`", "`word-swap`", "`sep`", "`co-attack`", "`sga`"]
    for cells in table.values():
        assert all(0 <= float(figure) <= 100 for cell in cells for figure in cell.split("/"))
    assert table["`sga`"][2].strip() == "99.08 / 98.94"
    assert table["`sga`"][0] != table["`sga`"][1]
    assert max(float(figure) for figure in table["`sga`"][1].split("/")) > 0
    runpy.run_path(str(script), run_name="__main__")
    again = capsys.readouterr().out
    assert "success" in first.splitlines()[1]
    assert [line for line in again.splitlines() if line.startswith("|")] == [
        line for line in first.splitlines() if line.startswith("|")
    ]
    assert not any(line.startswith("sga, ") for line in again.splitlines())
