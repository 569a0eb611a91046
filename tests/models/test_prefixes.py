"""Encoding by beginnings equals plain encoding, and computes each beginning once."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossguard.models.base import Tokens
from crossguard.models.prefixes import beginnings, pool_by_beginnings
from shared import COLOURS, SHAPES, make_clip

ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=9)


@given(ROWS)
def test_beginnings_are_the_different_prefixes(rows):
    length = max(map(len, rows))
    ids = np.array([row + [9] * (length - len(row)) for row in rows])
    end = np.array([len(row) - 1 for row in rows])
    tree = beginnings(ids, end)
    prefixes = {}
    for row, nodes in zip(rows, tree.node, strict=True):
        for position in range(len(row)):
            assert prefixes.setdefault(tuple(row[: position + 1]), nodes[position]) == nodes[position]
    assert len(tree.first) == len(prefixes) == len(set(prefixes.values()))
    for prefix, node in prefixes.items():
        assert tree.tokens[node] == prefix[-1]
        assert tree.depth[node] == len(prefix) - 1
        assert tree.node.ravel()[tree.first[node]] == node


TEXTS = [f"a {size} picture of a {c} {s}" for size in ("small", "large") for c in COLOURS for s in SHAPES]
TEXTS += ["a", "disc", "the bright disc on the left side of the large green square with the cross", "a small picture"]


@pytest.mark.parametrize("tokens_at_once", [1, 40, 10_000])
@pytest.mark.parametrize("legacy", [False, True])
def test_the_same_embeddings_as_one_by_one(tokens_at_once, legacy):
    model = make_clip(seed=4)
    if legacy:  # checkpoints of CLIP's early days pool at the highest id
        model.network.text_model.eos_token_id = 2
    tokens = model.tokenize(TEXTS)
    with torch.no_grad():
        plain = model.network.text_model(tokens.ids, attention_mask=tokens.mask.long()).pooler_output
    pooled = pool_by_beginnings(model.network.text_model, tokens, tokens_at_once=tokens_at_once)
    assert torch.allclose(pooled, plain, atol=1e-5)
    alone = torch.cat([model.encode_text([text]) for text in TEXTS])
    assert torch.allclose(model.encode_variants(tokens), alone, atol=1e-5)


def test_equal_texts_tie_exactly():
    model = make_clip(seed=4)
    twice = model.encode_variants(model.tokenize([*TEXTS, *TEXTS]))
    assert torch.equal(twice[: len(TEXTS)], twice[len(TEXTS) :])


def test_each_beginning_is_computed_once():
    model = make_clip(seed=4)
    seen = []
    layer = model.network.text_model.encoder.layers[0].mlp
    layer.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    tokens = model.tokenize(TEXTS)
    model.encode_variants(tokens)
    rows = [tuple(ids[mask].tolist()) for ids, mask in zip(tokens.ids, tokens.mask, strict=True)]
    assert sum(seen) == len({row[:n] for row in rows for n in range(1, len(row) + 1)})


def test_rows_padded_at_their_left_go_the_plain_way():
    model = make_clip(seed=4)
    tokens = model.tokenize(TEXTS[-2:])
    flipped = Tokens(tokens.ids.flip(1), tokens.mask.flip(1))
    assert pool_by_beginnings(model.network.text_model, flipped) is None
    with torch.no_grad():
        assert torch.equal(model.encode_variants(flipped), model.encode_text(flipped))
