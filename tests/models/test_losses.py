"""The contrastive losses against closed forms and a slow loop."""

from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from crossguard.models.losses import (
    contrastive,
    contrastive_by_image,
    contrastive_drawn,
    draw_targets,
    embedding_l2,
)


def slow(logits, positives, ignored=None):
    """The definition, one number at a time."""

    def direction(rows, targets, out):
        losses = []
        for row, wanted, gone in zip(rows, targets, out, strict=True):
            if not any(wanted):
                continue
            total = sum(exp(x) for x, skip in zip(row, gone, strict=True) if not skip)
            terms = [log(total) - x for x, is_true in zip(row, wanted, strict=True) if is_true]
            losses.append(sum(terms) / len(terms))
        return sum(losses) / len(losses)

    ignored = torch.zeros_like(positives) if ignored is None else ignored
    forth = direction(logits.tolist(), positives.tolist(), ignored.tolist())
    back = direction(logits.T.tolist(), positives.T.tolist(), ignored.T.tolist())
    return (forth + back) / 2


@st.composite
def problems(draw):
    images, texts = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    logits = 4 * torch.randn(images, texts, generator=generator)
    kinds = torch.randint(0, 4, (images, texts), generator=generator)
    positives, ignored = kinds == 0, kinds == 1
    i = int(torch.randint(images, (), generator=generator))
    j = int(torch.randint(texts, (), generator=generator))
    positives[i, j], ignored[i, j] = True, False
    return logits, positives, ignored


@settings(max_examples=25, deadline=None)
@given(problems())
def test_summed_equals_the_definition(problem):
    logits, positives, ignored = problem
    assert contrastive(logits, positives).item() == pytest.approx(slow(logits, positives), rel=1e-4, abs=1e-5)
    got = contrastive(logits, positives, ignored=ignored).item()
    assert got == pytest.approx(slow(logits, positives, ignored), rel=1e-4, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(0, 1000))
def test_one_positive_each_is_plain_clip(size, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, size, generator=generator)
    order = torch.randperm(size, generator=generator)
    positives = torch.zeros(size, size, dtype=torch.bool)
    positives[torch.arange(size), order] = True
    clip = (cross_entropy(logits, order) + cross_entropy(logits.T, order.argsort())) / 2
    assert torch.allclose(contrastive(logits, positives), clip, atol=1e-5)
    assert torch.allclose(contrastive_by_image(logits, positives).mean(), clip, atol=1e-5)
    drawn = contrastive_drawn(logits, positives, generator=generator)
    assert torch.allclose(drawn, clip, atol=1e-5)


def test_closed_form_of_two_positives():
    # Flat logits: every softmax is uniform, so each direction is the log of its width, whatever the targets.
    positives = torch.tensor([[True, True, False], [False, False, True]])
    assert contrastive(torch.zeros(2, 3), positives).item() == pytest.approx((log(3) + log(2)) / 2)
    # One text ignored by image 0 narrows that row to two, and leaves the column with its other image alone.
    ignored = torch.tensor([[False, False, True], [False, False, False]])
    expected = ((log(2) + log(3)) / 2 + (log(2) + log(2) + log(1)) / 3) / 2
    assert contrastive(torch.zeros(2, 3), positives, ignored=ignored).item() == pytest.approx(expected)


def test_the_least_loss_is_the_entropy_of_the_targets():
    positives = torch.eye(3, dtype=torch.bool).repeat_interleave(2, dim=1)
    best = contrastive(100.0 * positives.float(), positives).item()
    assert best == pytest.approx(log(2) / 2, abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    assert contrastive_drawn(100.0 * positives.float(), positives, generator=generator).item() == pytest.approx(0)


@settings(max_examples=25, deadline=None)
@given(problems())
def test_ignored_and_unlinked_pairs(problem):
    logits, positives, ignored = problem
    changed = torch.where(ignored, logits + 7, logits)
    assert torch.allclose(
        contrastive(logits, positives, ignored=ignored), contrastive(changed, positives, ignored=ignored)
    )
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(contrastive(leaf, positives, ignored=ignored), leaf)
    assert torch.isfinite(gradient).all()
    assert (gradient[ignored] == 0).all()


@settings(max_examples=25, deadline=None)
@given(problems())
def test_a_true_pair_is_never_pushed_apart_by_the_drawn_loss(problem):
    logits, positives, _ = problem
    leaf = logits.clone().requires_grad_()
    loss = contrastive_drawn(leaf, positives, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert (gradient[positives] <= 1e-7).all()


@settings(max_examples=25, deadline=None)
@given(problems())
def test_summed_gradient_has_the_sign_of_share_minus_probability(problem):
    logits, positives, _ = problem
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(contrastive(leaf, positives), leaf)
    assert (gradient[~positives] >= -1e-7).all()


@settings(max_examples=25, deadline=None)
@given(problems(), st.integers(0, 50))
def test_drawn_targets_are_one_positive_per_row(problem, seed):
    _, positives, _ = problem
    drawn = draw_targets(positives, generator=torch.Generator().manual_seed(seed))
    assert not (drawn & ~positives).any()
    assert torch.equal(drawn.sum(dim=1), positives.any(dim=1).long())


def test_draws_are_uniform():
    positives = torch.tensor([[True, False, True, True]]).repeat(3000, 1)
    shares = draw_targets(positives, generator=torch.Generator().manual_seed(0)).float().mean(dim=0)
    assert torch.allclose(shares, torch.tensor([1 / 3, 0, 1 / 3, 1 / 3]), atol=0.04)


@settings(max_examples=25, deadline=None)
@given(problems())
def test_parts_of_images_sum_what_belongs_to_them(problem):
    logits, positives, ignored = problem
    parts = contrastive_by_image(logits, positives, ignored=ignored)
    assert (parts[~positives.any(dim=1)] == 0).all()
    for row in range(len(logits)):
        if positives[row].any():
            own = slow_part(logits, positives, ignored, row)
            assert parts[row].item() == pytest.approx(own, rel=1e-4, abs=1e-5)


def slow_part(logits, positives, ignored, row):
    def surprise(values, gone, wanted):
        total = log(sum(exp(x) for x, skip in zip(values, gone, strict=True) if not skip))
        terms = [total - x for x, yes in zip(values, wanted, strict=True) if yes]
        return sum(terms) / len(terms)

    forth = surprise(logits[row].tolist(), ignored[row].tolist(), positives[row].tolist())
    columns = positives[row].nonzero().flatten().tolist()
    backs = [surprise(logits[:, j].tolist(), ignored[:, j].tolist(), positives[:, j].tolist()) for j in columns]
    return (forth + sum(backs) / len(backs)) / 2


def test_embedding_distance_leaves_the_reference_alone():
    embeddings = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    reference = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    distances = embedding_l2(embeddings, reference)
    assert distances.tolist() == [5.0, 25.0]
    distances.sum().backward()
    assert embeddings.grad is not None
    assert reference.grad is None


def test_wrong_masks_are_refused():
    logits = torch.zeros(2, 2)
    eye = torch.eye(2, dtype=torch.bool)
    with pytest.raises(ValueError, match="at least one true pair"):
        contrastive(logits, ~eye & eye)
    with pytest.raises(ValueError, match="both in `positives` and in `ignored`, but 2"):
        contrastive(logits, eye, ignored=eye)
