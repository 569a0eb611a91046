"""Published designs are balanced, the same everywhere, and what they certify no attack on the deployed vote changes."""

import hashlib
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch
from certify_toys import KEEP, SIZES, SignNet
from hypothesis import given, settings
from hypothesis import strategies as st
from test_segment import TwoRegions, samples  # noqa: F401  (a fixture)

from crossguard.certify import certify, certify_product, certify_segmentation, certify_votes
from crossguard.certify.ensemble import best_draws
from crossguard.certify.published import PublishedDesign
from crossguard.certify.thresholds import PublishedMargins


@settings(deadline=None)
@given(st.integers(1, 40), st.data())
def test_fixed_designs_are_balanced_and_repeat_nothing(n, data):
    k, draws = data.draw(st.integers(0, n)), data.draw(st.integers(1, 60))
    design = PublishedDesign("fixed", {"x": n}, {"x": k}, draws, data.draw(st.integers(0, 5)))
    mask = design.masks("x", torch.arange(draws)).numpy()
    assert mask.shape == (draws, n)
    assert (mask.sum(axis=1) == k).all()  # so no draw repeats an element
    degrees = mask.sum(axis=0)
    assert set(degrees.tolist()) <= {draws * k // n, -(-draws * k // n)}
    assert (design.degrees()["x"] == degrees).all()


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 30), st.integers(0, 3))
def test_product_designs_are_all_tuples_of_blocks(n, other, k, seed):
    k = min(k, n)
    sizes, keep = {"x": n, "y": other}, {"x": k, "y": min(2, other)}
    blocks = (-(-n // k) if k else 0, -(-other // keep["y"]))
    draws = (blocks[0] or 1) * blocks[1]
    design = PublishedDesign("product", sizes, keep, draws, seed)
    masks = {m: design.masks(m, torch.arange(draws)).numpy() for m in sizes}
    assert {m: mask.sum(axis=0).tolist() for m, mask in masks.items()} == {
        m: degrees.tolist() for m, degrees in design.degrees().items()
    }
    for m, mask in masks.items():
        assert mask.sum(axis=1).max(initial=0) <= keep[m]
        different = np.unique(mask, axis=0)
        assert (different.sum(axis=0) == (1 if keep[m] else 0)).all()  # disjoint, and together everything
        assert np.ptp(different.sum(axis=1)) <= 1
    assert len(np.unique(np.concatenate(list(masks.values()), axis=1), axis=0)) == draws
    with pytest.raises(ValueError, match=f"= {draws}, all tuples"):
        replace(design, draws=draws + 1)


def test_a_design_is_the_same_on_every_machine_and_for_good():
    design = PublishedDesign("fixed", {"x": 50, "y": 7}, {"x": 8, "y": 3}, 20, 4)
    told = b"".join(design.masks(m, torch.arange(20)).numpy().tobytes() for m in ("x", "y"))
    assert hashlib.sha256(told).hexdigest()[:16] == "8ae53c2655bd1088"
    product_design = PublishedDesign("product", {"x": 50, "y": 7}, {"x": 8, "y": 3}, 21, 4)
    told = b"".join(product_design.masks(m, torch.arange(21)).numpy().tobytes() for m in ("x", "y"))
    assert hashlib.sha256(told).hexdigest()[:16] == "6605f2de18997686"


@settings(deadline=None, max_examples=60)
@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.data())
def test_margins_are_those_of_the_degrees(n, data):
    k = tuple(data.draw(st.integers(0, size)) for size in n)
    radii = list(product(*[range(min(size, 3) + 1) for size in n]))
    draws = data.draw(st.integers(1, 40))
    sizes, keep = dict(zip("xy", n, strict=True)), dict(zip("xy", k, strict=True))
    degrees = list(PublishedDesign("fixed", sizes, keep, draws).degrees().values())
    margins = PublishedMargins(n, k, draws=draws).at(radii)
    for ahead in range(draws % 2, draws + 1, 2):  # of two labels
        votes = np.array([(draws + ahead) // 2, (draws - ahead) // 2])
        assert ((ahead / draws >= margins) == certify_votes(votes, degrees, radii)).all()
    blocks = tuple(-(-size // kept) if kept else 0 for size, kept in zip(n, k, strict=True))
    tuples = int(np.prod([m or 1 for m in blocks]))
    margins = PublishedMargins(n, k, draws=tuples, product=True).at(radii)
    for top in range((tuples + 1) // 2, tuples + 1):
        found = certify_product([top, tuples - top], blocks, radii)
        assert (((2 * top - tuples) / tuples >= margins) == found).all()


def vote(model, left, right, design):
    """The answer of the published ensemble, with nothing but its masks."""
    inputs = {"left": torch.as_tensor(left), "right": torch.as_tensor(right)}
    draw = torch.arange(design.draws)
    masks = {m: design.masks(m, draw) for m in inputs}
    values = {m: (inputs[m].float() * masks[m])[..., None] for m in inputs}
    with torch.no_grad():
        return int(model.eval()(values, masks).argmax(dim=1).bincount(minlength=3).argmax())


@pytest.mark.parametrize(("kind", "draws"), [("fixed", 30), ("product", 18)])
def test_no_attack_within_certified_radii_changes_the_vote(sign_net, sensors, kind, draws):
    found = certify(sign_net, sensors, keep=KEEP, design=kind, draws=draws if kind == "fixed" else None)
    assert (found.counts.draws, found.scheme, found.alpha, found.deterministic) == (draws, kind, 0.0, True)
    assert "without any chance of error" in found.scope
    design = PublishedDesign(kind, SIZES, KEEP, draws)
    tried = 0
    for i in range(6):
        left, right = (sensors.modalities[m][i, :, 0] for m in ("left", "right"))
        assert vote(SignNet(), left, right, design) == found.labels[i]
        for r, s in found.frontier(i).tolist():
            for one, other in product(combinations(range(6), r), combinations(range(5), s)):
                for value in (-9.0, 9.0):
                    left_edited, right_edited = left.copy(), right.copy()
                    left_edited[list(one)], right_edited[list(other)] = value, value
                    assert vote(SignNet(), left_edited, right_edited, design) == found.labels[i]
                    tried += r + s > 0
    assert tried > 100


def test_certificates_of_published_designs_are_the_pure_ones(sign_net, sensors, tmp_path):
    axes = [(r, s) for r in range(3) for s in range(3)]
    for kind in ("fixed", "product"):
        found = certify(sign_net, sensors, keep=KEEP, design=kind, folder=tmp_path)
        assert (certify(sign_net, sensors, keep=KEEP, design=kind).counts.votes == found.counts.votes).all()
        if kind == "fixed":
            degrees = list(PublishedDesign("fixed", SIZES, KEEP, found.counts.draws).degrees().values())
            pure = certify_votes(found.counts.votes, degrees, axes)
        else:
            pure = certify_product(found.counts.votes, (6, 3), axes)
        for (r, s), expected in zip(axes, pure, strict=True):
            assert (found.certified({"left": r, "right": s}) == expected).all()
        assert found.accuracy({}) == found.clean_accuracy  # nothing abstains
        assert found.abstention == 0
        assert found.summary()["seed"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["votes-fixed.npz", "votes-product.npz"]


def test_segmentations_have_published_designs(samples):  # noqa: F811
    for kind in ("fixed", "product"):
        found = certify_segmentation(TwoRegions(), samples, keep={"image": 2, "depth": 1}, design=kind)
        assert found.deterministic
        n, k = {"image": 6, "depth": 6}, {"image": 2, "depth": 1}
        design = PublishedDesign(kind, n, k, found.counts[0].draws)
        vectors = [(0, 0), (1, 0), (1, 1)]
        for i, counts in enumerate(found.counts):
            radii = [{"image": r, "depth": s} for r, s in vectors]
            if kind == "fixed":
                pure = certify_votes(counts.votes, list(design.degrees().values()), vectors)
            else:
                pure = certify_product(counts.votes, design.blocks, vectors)
            assert (found.image(i, radii).certified == pure).all()
        bounds = found.bounds([{}, {"image": 1}])
        assert bounds[0].accuracy >= bounds[1].accuracy
        assert bounds[0].right == sum(
            (found.image(i, [{}]).label == truth).sum() for i, truth in enumerate(samples.labels)
        )
        assert found.summary()["abstention"] == 0


def test_a_modality_may_be_left_out(sign_net, sensors):
    for options in ({"seed": 0, "draws": 100}, {"design": "fixed"}, {"design": "product"}):
        found = certify(sign_net, sensors, keep={"left": 2, "right": 0}, alpha=0.01, **options)
        certified = found.certified({"left": 0, "right": 5})
        assert certified.any()
        assert (certified == found.certified({})).all()  # no edit of it matters


def test_the_proposed_number_of_draws_wastes_least():
    assert best_draws({"x": 128, "y": 128}, {"x": 5, "y": 5}, 1000) == 896  # 35 per element
    n, k = {"x": 465_750, "y": 465_750}, {"x": 8988, "y": 996}
    assert best_draws(n, k, 500) == 466
    margins = PublishedMargins(tuple(n.values()), tuple(k.values()), draws=466)
    assert max(r for r in range(40) if margins.at([(r, 2 * r)])[0] <= 1) == 21
    assert PublishedMargins((128,), (5,), draws=896).reach(1.0) == (12,)


def test_what_is_not_proven_is_refused(unchecked, sign_net, sensors):
    for changes, message in (
        ({"design": "fixd"}, "did you mean 'fixed'"),
        ({"design": "fixed", "scheme": "joint"}, "scheme 'independent' with a published design"),
        ({"design": "fixed", "selection_draws": 5}, "a published design, which needs none"),
        ({"design": "product", "draws": 19}, "or 18, all tuples"),
        ({"design": "fixed", "kind": "edit"}, "Expected kind 'substitution' of 'left'"),
    ):
        with pytest.raises(ValueError, match=message):
            certify(sign_net, sensors, keep=KEEP, **changes)
    with pytest.raises(ValueError, match="which no other is proven for"):
        PublishedMargins((5,), (2,), "edit", draws=5)
    assert sign_net.calls == 0
