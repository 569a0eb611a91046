"""Ranks and recalls against a brute-force count."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.evaluate import METRICS, embedding_ranks, partner_ranks, recalls, retrieval, retrieval_ranks
from crossguard.evaluate.candidates import nearest_items


def brute_force(scores, links):
    """One query at a time, one gallery item at a time."""
    ranks = []
    for query in range(len(scores)):
        own = {g for q, g in links if q == query}
        best = max(scores[query][g] for g in own)
        ranks.append(1 + sum(scores[query][g] >= best for g in range(len(scores[query])) if g not in own))
    return ranks


@st.composite
def problems(draw):
    """Few different scores, so that ties are common; every query and every gallery item has a partner."""
    queries, gallery = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    scores = draw(
        st.lists(
            st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5]), min_size=gallery, max_size=gallery),
            min_size=queries,
            max_size=queries,
        )
    )
    links = {(q, draw(st.integers(0, gallery - 1))) for q in range(queries)}
    links |= {(draw(st.integers(0, queries - 1)), g) for g in range(gallery)}
    return torch.tensor(scores), torch.tensor(sorted(links))


@given(problems())
def test_ranks_are_the_brute_force_ones(problem):
    scores, links = problem
    image_ranks, text_ranks = retrieval_ranks(scores, links)
    assert image_ranks.tolist() == brute_force(scores.tolist(), links.tolist())
    assert text_ranks.tolist() == brute_force(scores.T.tolist(), links.flip(1).tolist())


@given(problems(), st.randoms(use_true_random=False))
def test_ranks_follow_a_permutation(problem, random):
    scores, links = problem
    rows, columns = list(range(scores.shape[0])), list(range(scores.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    shuffled = scores[rows][:, columns]
    moved = torch.tensor([[rows.index(q), columns.index(g)] for q, g in links.tolist()])
    assert partner_ranks(shuffled, moved).tolist() == [partner_ranks(scores, links).tolist()[r] for r in rows]


@settings(max_examples=30)
@given(problems(), st.integers(1, 9))
def test_chunks_change_nothing(problem, chunk):
    scores, links = problem
    whole = partner_ranks(scores, links)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_CHUNK", chunk)
        assert torch.equal(partner_ranks(scores, links), whole)


def test_a_tie_is_a_miss():
    assert partner_ranks(torch.zeros(1, 4), torch.tensor([[0, 2]])).tolist() == [4]
    assert partner_ranks(torch.tensor([[0.5, 0.5]]), torch.tensor([[0, 0], [0, 1]])).tolist() == [1]


def test_unscored_partners_come_last():
    scores = torch.tensor([[-torch.inf, 0.1, -torch.inf]])
    assert partner_ranks(scores, torch.tensor([[0, 0]])).tolist() == [3]


def test_embeddings_rank_by_cosine():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(40, 8)).astype(np.float32))
    texts = torch.from_numpy(rng.normal(size=(60, 8)).astype(np.float32))
    links = torch.stack([torch.arange(60) % 40, torch.arange(60)], dim=1)
    cosines = (images / images.norm(dim=1, keepdim=True)) @ (texts / texts.norm(dim=1, keepdim=True)).T
    assert embedding_ranks(images, texts, links).tolist() == brute_force(cosines.tolist(), links.tolist())
    assert torch.equal(embedding_ranks(images * 7, texts * 0.1, links), embedding_ranks(images, texts, links))


def test_equal_items_of_a_gallery_tie():
    generator = torch.Generator().manual_seed(0)
    for size in (5, 10, 37, 111, 500):
        gallery = torch.randn(size, 512, generator=generator)
        gallery[-1] = gallery[0]
        queries = gallery[:1] + 0.5 * torch.randn(50, 512, generator=generator)
        links = torch.stack([torch.arange(50), torch.full((50,), size - 1)], dim=1)
        assert embedding_ranks(queries, gallery, links).min() == 2
        found = nearest_items(queries, gallery, links, count=2)
        assert np.array_equal(found.cosines[:, 0], found.cosines[:, 1])


def test_recalls_count_the_top():
    ranks = {"tr": torch.tensor([1, 5, 6, 11]), "ir": torch.tensor([1, 10])}
    assert recalls(ranks) == {
        "tr@1": 25.0, "tr@5": 50.0, "tr@10": 75.0, "ir@1": 50.0, "ir@5": 50.0, "ir@10": 100.0
    }  # fmt: skip
    assert tuple(recalls(ranks)) == METRICS


@pytest.mark.parametrize(
    ("scores", "links", "said"),
    [
        (torch.tensor([[0.0, torch.nan]]), torch.tensor([[0, 0]]), "NaN"),
        (torch.zeros(1, 2), torch.tensor([[0, 2]]), r"in \[0, 2\)"),
        (torch.zeros(1, 2), torch.tensor([[0, -1]]), r"in \[0, 2\)"),
        (torch.zeros(2, 2), torch.tensor([[0, 0]]), "1 of 2 have none"),
        (torch.zeros(1, 2), torch.tensor([[0, 0], [0, 0]]), "repeated"),
    ],
)
def test_refuses(scores, links, said):
    with pytest.raises(ValueError, match=said):
        partner_ranks(scores, links)


def test_refuses_no_queries():
    with pytest.raises(ValueError, match="Expected queries in direction 'ir'"):
        recalls({"tr": torch.tensor([1]), "ir": torch.tensor([], dtype=torch.int64)})


def test_never_holds_all_scores(monkeypatch):
    """25,000 texts x 5,000 images would be 500 MB of float32; here a tenth of it with a limit of 4 MB."""
    generator = torch.Generator().manual_seed(0)
    texts, images = torch.randn(2500, 8, generator=generator), torch.randn(5000, 8, generator=generator)
    links = torch.stack([torch.arange(2500), torch.arange(2500) // 5], dim=1)
    sizes, rank = [], retrieval._rank

    def watched(scores, links):
        sizes.append(scores.numel())
        return rank(scores, links)

    monkeypatch.setattr(retrieval, "_CHUNK", 1 << 20)
    monkeypatch.setattr(retrieval, "_rank", watched)
    assert len(embedding_ranks(texts, images, links)) == 2500
    assert max(sizes) <= 1 << 20
    assert sum(sizes) == 2500 * 5000
