"""Re-ranking by match: exact against brute force in both directions, streamed, each pair once, and taken up again."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from crossguard.attacks import make_attack
from crossguard.evaluate import candidates as first_stage
from crossguard.evaluate import evaluate
from crossguard.evaluate import matching as second_stage
from crossguard.evaluate.candidates import Candidates, candidate_ranks, nearest_items
from crossguard.evaluate.matching import look_up, match_scores, union
from crossguard.evaluate.ranking import CosineRanking, Matching, MatchRanking, Side, candidates_of
from crossguard.evaluate.text_bank import TextBank
from crossguard.progress import Silent
from crossguard.runs import RunFolder
from crossguard.threat import LInf, ThreatModel, WordEdits
from fusion_models import make_albef, make_blip

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["albef", "blip"])
def model(request, tmp_path_factory):
    make = {"albef": make_albef, "blip": make_blip}[request.param]
    return make(tmp_path_factory.mktemp(request.param))


def slow_ranks(scores, own):
    """One query at a time; ties are misses."""
    ranks = []
    for query, row in enumerate(scores):
        best = max(row[item] for item in own[query])
        ranks.append(1 + sum(row[item] >= best for item in range(len(row)) if item not in own[query]))
    return ranks


def slow_candidates(cosines, own, count):
    """Sort by (higher cosine, partners last, lower index)."""
    return [
        sorted(range(len(row)), key=lambda item: (-row[item], item in own[query], item))[:count]
        for query, row in enumerate(cosines)
    ]


def partners(links, queries):
    own = [set() for _ in range(queries)]
    for query, item in links:
        own[int(query)].add(int(item))
    return own


@st.composite
def cosine_problems(draw):
    """Directions on a few axes, so that cosines tie often; every query has a partner."""
    queries, gallery = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    axis = st.sampled_from([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]])
    asked = draw(st.lists(axis, min_size=queries, max_size=queries))
    searched = draw(st.lists(axis, min_size=gallery, max_size=gallery))
    links = {(query, draw(st.integers(0, gallery - 1))) for query in range(queries)}
    links |= draw(st.sets(st.tuples(st.integers(0, queries - 1), st.integers(0, gallery - 1)), max_size=6))
    return torch.tensor(asked), torch.tensor(searched), torch.tensor(sorted(links))


@settings(max_examples=60)
@given(cosine_problems(), st.integers(1, 9), st.integers(1, 40))
def test_candidates_are_the_slow_ones(problem, count, chunk):
    queries, gallery, links = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first_stage, "_CHUNK", chunk)
        found = nearest_items(queries, gallery, links, count=count)
    cosines = (queries / queries.norm(dim=1, keepdim=True)) @ (gallery / gallery.norm(dim=1, keepdim=True)).T
    expected = slow_candidates(cosines.tolist(), partners(links, len(queries)), count)
    assert [sorted(row) for row in found.items.tolist()] == [sorted(row) for row in expected]
    assert np.allclose(found.cosines, np.take_along_axis(cosines.numpy(), found.items, axis=1))


@settings(max_examples=60)
@given(cosine_problems(), st.integers(1, 9), st.data())
def test_ranks_are_those_of_a_matrix_of_minus_infinity(problem, count, data):
    queries, gallery, links = problem
    found = nearest_items(queries, gallery, links, count=count)
    score = st.sampled_from([-1.0, 0.0, 0.5])
    size = found.items.size
    scores = np.array(data.draw(st.lists(score, min_size=size, max_size=size)), np.float32).reshape(found.items.shape)
    whole = np.full((len(queries), len(gallery)), -np.inf)
    np.put_along_axis(whole, found.items, scores, axis=1)
    assert candidate_ranks(found, scores, links.numpy()).tolist() == slow_ranks(whole, partners(links, len(queries)))


def test_a_partner_that_is_no_candidate_is_a_miss():
    found = Candidates(np.array([[2]]), np.array([[0.9]], np.float32), 30)
    assert candidate_ranks(found, np.array([[7.0]], np.float32), np.array([[0, 1], [0, 3]])).tolist() == [29]


def test_bad_candidates():
    ones, link = torch.ones(1, 2), torch.tensor([[0, 0]])
    with pytest.raises(ValueError, match="at least 1 candidate"):
        nearest_items(ones, ones, link, count=0)
    with pytest.raises(ValueError, match="finite embeddings"):
        nearest_items(ones * torch.nan, ones, link, count=1)
    with pytest.raises(ValueError, match="1 are NaN"):
        candidate_ranks(nearest_items(ones, ones, link, count=1), np.array([[np.nan]], np.float32), link.numpy())


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1), st.integers(0, 10**6))
def test_union_and_look_up(given_pairs, seed):
    pairs = np.array(given_pairs)
    cut = seed % len(pairs)
    both = union(pairs[: cut + 1], pairs[cut:])
    assert [tuple(pair) for pair in both] == sorted(set(given_pairs))
    scores = np.arange(len(both), dtype=np.float32)
    assert [tuple(both[int(place)]) for place in look_up(pairs, both, scores)] == given_pairs


class Counted:
    """Reads pixels and remembers what was asked."""

    def __init__(self, pixels):
        self.pixels, self.asked = pixels, []

    def __call__(self, ids):
        self.asked += ids.tolist()
        return self.pixels[torch.from_numpy(ids)]


def side_of(model, pixels, strings):
    with torch.no_grad():
        return Side(model.encode_image(pixels), model.encode_text(list(strings)), Counted(pixels), tuple(strings))


@pytest.fixture(scope="module")
def pairs(toy_pairs):
    return toy_pairs.head(6)


@pytest.fixture(scope="module")
def problem(model, pairs):
    """A clean side, and one of other pictures and texts of which some are equal."""
    pixels = model.preprocess([pairs.image(i) for i in range(len(pairs.images))])
    noise = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0))
    moved = ((pixels + 0.3 * (noise - 0.5)).clamp(0, 1) * 255).round() / 255
    texts = [f"{text.rsplit(' ', 1)[0]} dog" if n % 3 else "a dog" for n, text in enumerate(pairs.texts)]
    return side_of(model, pixels, pairs.texts), side_of(model, moved, texts)


@torch.no_grad()
def every_score(model, images, texts):
    """Every pair's score, one pair at a time, and every cosine."""
    scores = np.zeros((len(images.images), len(texts.strings)))
    cosines = torch.nn.functional.normalize(images.images, dim=1) @ torch.nn.functional.normalize(texts.texts, dim=1).T
    words = [model.encode_text_states([text]) for text in texts.strings]
    for i in range(len(scores)):
        state = model.encode_image_states(images.read_pixels.pixels[i : i + 1])
        for j, word in enumerate(words):
            logits = model.match(state, word, torch.tensor([[0, 0]]))
            scores[i, j] = float(logits[0, 1]) + (float(cosines[i, j]) if model.rank_adds_cosine else 0.0)
    return scores, cosines


def brute_force(scores, cosines, links, count):
    """The protocol on whole matrices, direction by direction."""
    found = {}
    for direction, matrix, near, ends in (
        ("tr", scores, cosines, links),
        ("ir", scores.T, cosines.T, links[:, ::-1]),
    ):
        own = partners(ends, len(matrix))
        kept = np.full(matrix.shape, -np.inf)
        for query, items in enumerate(slow_candidates(near.tolist(), own, count)):
            kept[query, items] = np.round(matrix[query, items], 4)  # equal texts tie, whatever the batch
        found[direction] = slow_ranks(kept, own)
    return found


def rerank(model, queries, gallery, pairs, count, **options):
    matching = Matching(model, count, options.pop("batch_size", 5), CPU, Silent(), options.pop("folder", None))
    return MatchRanking(queries, gallery, torch.tensor(pairs.links), matching, title="Match")


def test_ranks_are_those_of_brute_force(model, problem, pairs):
    clean, attacked = problem
    for queries, gallery in ((clean, clean), (attacked, attacked), (attacked, clean)):
        asking, asked = every_score(model, queries, gallery), every_score(model, gallery, queries)
        for count in (3, 8, 1000):
            ranking = rerank(model, queries, gallery, pairs, count)
            assert ranking.ranks["tr"].tolist() == brute_force(*asking, pairs.links, count)["tr"]
            assert ranking.ranks["ir"].tolist() == brute_force(*asked, pairs.links, count)["ir"]
        by_cosine = CosineRanking(queries, gallery, torch.tensor(pairs.links))
        assert ranking.ranks["tr"].tolist() != by_cosine.ranks["tr"].tolist()


def test_every_pair_is_scored_once_and_every_image_encoded_once(model, problem, pairs, monkeypatch):
    _, attacked = problem
    seen = []
    original = second_stage._match

    def watched(model, images, bank, pairs):
        seen.append(len(pairs))
        return original(model, images, bank, pairs)

    monkeypatch.setattr(second_stage, "_match", watched)
    attacked.read_pixels.asked.clear()
    ranking = rerank(model, attacked, attacked, pairs, 4)
    slots = {text: n for n, text in enumerate(dict.fromkeys(attacked.strings))}
    wanted = {(i, slots[attacked.strings[j]]) for i, row in enumerate(ranking._candidates["tr"].items) for j in row}
    wanted |= {(i, slots[attacked.strings[j]]) for j, row in enumerate(ranking._candidates["ir"].items) for i in row}
    assert sum(seen) == len(wanted)
    assert sorted(attacked.read_pixels.asked) == sorted(set(attacked.read_pixels.asked))


def test_blocks_and_forwards_change_nothing(model, problem, pairs, monkeypatch):
    clean, _ = problem
    whole = rerank(model, clean, clean, pairs, 9, batch_size=100)
    monkeypatch.setattr(second_stage, "_PAIRS_PER_FORWARD", {"cpu": 7})
    parts = rerank(model, clean, clean, pairs, 9, batch_size=2)
    for direction in ("tr", "ir"):
        np.testing.assert_allclose(parts._scores[direction], whole._scores[direction], atol=2e-5)
        assert torch.equal(parts.ranks[direction], whole.ranks[direction])


def test_top_shows_what_was_ranked(model, problem, pairs):
    clean, _ = problem
    ranking = rerank(model, clean, clean, pairs, 12)
    for query in range(5):
        best = ranking.top("ir", query, count=3)
        own = set(pairs.images_of(query).tolist())
        first = next((n for n, item in enumerate(best) if item in own), None)
        if first is not None:
            assert ranking.ranks["ir"][query] >= first + 1 - sum(item in own for item in best[:first])
        scores = dict(zip(ranking._candidates["ir"].items[query], ranking._scores["ir"][query], strict=True))
        assert [scores[item] for item in best] == sorted(scores.values(), reverse=True)[:3]


def test_it_goes_on_where_it_stopped(model, problem, pairs, tmp_path, monkeypatch):
    clean, _ = problem
    expected = rerank(model, clean, clean, pairs, 6, batch_size=1)
    calls, original = [], second_stage._match

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(second_stage, "_match", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rerank(model, clean, clean, pairs, 6, batch_size=1, folder=tmp_path)
    files = sorted((tmp_path / "both").iterdir())
    assert len(files) == 2
    files[0].write_bytes(files[0].read_bytes()[:-1])  # damaged: scored again
    resumed = rerank(model, clean, clean, pairs, 6, batch_size=1, folder=tmp_path)
    assert len(calls) == 3 + 5  # six blocks, one of which was kept whole
    for direction in ("tr", "ir"):
        assert np.array_equal(resumed._scores[direction], expected._scores[direction])
    rerank(model, clean, clean, pairs, 6, batch_size=1, folder=tmp_path)
    assert len(calls) == 3 + 5
    rerank(model, clean, clean, pairs, 2, batch_size=1, folder=tmp_path)  # other pairs
    assert len(calls) > 3 + 5


def test_a_bank_gives_the_states_of_its_texts(model):
    texts = ["a red disc", "a dog", "a small picture of the blue square on the left side", "dog"]
    bank = TextBank(model, texts, batch_size=2)
    assert len(bank) == 4
    chosen = torch.tensor([2, 0, 0, 3])
    states = bank.select(chosen)
    for row, place in enumerate(chosen.tolist()):
        with torch.no_grad():
            alone = model.encode_text_states([texts[place]])
        assert torch.equal(states.mask[row].nonzero(), alone.mask[0].nonzero())
        torch.testing.assert_close(states.hidden[row][states.mask[row]], alone.hidden[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(states.embedding[row], alone.embedding[0], atol=1e-5, rtol=1e-5)
    assert not states.hidden[~states.mask].any()


def test_how_many_candidates(model, tiny_clip):
    assert (candidates_of(model, None), candidates_of(model, 0), candidates_of(model, 256)) == (128, 0, 256)
    assert (candidates_of(tiny_clip, None), candidates_of(tiny_clip, 0)) == (0, 0)
    with pytest.raises(ValueError, match="without `match`, but got 5 for CLIP"):
        candidates_of(tiny_clip, 5)
    with pytest.raises(ValueError, match="got -1"):
        candidates_of(model, -1)


def test_broken_logits_are_refused(model, problem, pairs, monkeypatch):
    clean, _ = problem
    original = type(model).match
    monkeypatch.setattr(type(model), "match", lambda self, *given: original(self, *given) * torch.nan)
    with pytest.raises(ValueError, match="not all finite"):
        rerank(model, clean, clean, pairs, 2)
    monkeypatch.setattr(type(model), "match", lambda self, *given: original(self, *given)[:, :1])
    with pytest.raises(ValueError, match=r"to give finite logits \[\d+, 2\], but got \[\d+, 1\]"):
        match_scores(
            model,
            np.array([[0, 0]]),
            read_pixels=clean.read_pixels,
            texts=["a dog"],
            batch_size=1,
            device=CPU,
            progress=Silent(),
            title="",
        )


THREAT = ThreatModel(image=LInf(8 / 255), text=WordEdits(1))


def ranks_of(result, field):
    return {d: [row[field] for row in result.rows if row["direction"] == d] for d in ("tr", "ir")}


@pytest.mark.parametrize("target", ["both", "query"])
def test_evaluation_ranks_by_match_clean_and_under_attack(model, problem, pairs, tmp_path, target):
    clean, _ = problem
    threat = ThreatModel(target=target, image=THREAT["image"], text=THREAT["text"])
    run = RunFolder.open(tmp_path / "run", settings={})
    attack = make_attack("sga", steps=1, scales=(0.5,))
    given = {"attack": attack, "threat": threat, "rerank": 3, "batch_size": 4}
    result = evaluate(model, pairs, run=run, **given)
    pixels, texts = clean.read_pixels.pixels.clone(), list(clean.strings)
    for path in (tmp_path / "run" / "adversarial").rglob("batch-*.npz"):
        with np.load(path) as batch:
            pixels[batch["image_ids"]] = torch.from_numpy(batch["grey"]).float() / 255
    for row in result.rows:
        if row["direction"] == "ir":
            texts[row["index"]] = row["adversarial_text"]
    attacked = side_of(model, pixels, texts)
    gallery = attacked if target == "both" else clean
    before = brute_force(*every_score(model, clean, clean), pairs.links, 3)
    assert ranks_of(result, "clean_rank") == before
    asking, asked = every_score(model, attacked, gallery), every_score(model, gallery, attacked)
    assert ranks_of(result, "robust_rank") == {
        "tr": brute_force(*asking, pairs.links, 3)["tr"],
        "ir": brute_force(*asked, pairs.links, 3)["ir"],
    }
    assert result.settings["rerank"] == 3
    for example in result.examples:
        assert {len(found) for found in example.answers.values()} == {3}
    with pytest.raises(ValueError, match="`rerank` is 3 there and 4 now"):
        evaluate(model, pairs, run=run, **{**given, "rerank": 4})
    assert evaluate(model, pairs, run=run, **given).rows == result.rows


def test_by_cosine_alone_when_asked(model, pairs):
    result = evaluate(model, pairs, rerank=0)
    assert result.settings["rerank"] == 0
    whole = evaluate(model, pairs)
    assert whole.settings["rerank"] == 128
    assert ranks_of(result, "clean_rank") != ranks_of(whole, "clean_rank")
