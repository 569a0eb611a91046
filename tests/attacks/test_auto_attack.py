"""AutoAttack's parts: against their authors' own code, another library's, and slow or closed forms of each piece."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, SquareAttack
from art.estimators.classification import PyTorchClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack
from quick import QUICK
from scipy.optimize import linprog

from crossguard.attacks import ClassScores, LInfBall, Search, make_attack, run_parts, standard_parts
from crossguard.attacks.apgd import auto_ascend
from crossguard.attacks.ascent import with_gradient
from crossguard.attacks.auto_attack import image_scores
from crossguard.attacks.scores import cross_entropy, lead, targeted_ratio
from crossguard.threat import LInf, ThreatModel

SAMPLES, STEPS, TARGETS, QUERIES = 64, 30, 4, 300
# Of every 64 digits, these leave about half and a fifth.
RADII = [0.1, pytest.param(0.15, marks=pytest.mark.slow)]
NAMES = ("apgd-ce", "apgd-t", "fab-t", "square")


def digit_scores(network, labels):
    right = torch.nn.functional.one_hot(labels, 10).bool()
    return ClassScores(lambda values, rows: network(values), right, ~right)


def ours(network, pixels, labels, *, eps, parts, seed=0, settle=None):
    ball = LInfBall(pixels, eps)
    search = Search(digit_scores(network, labels), ball, ids=torch.arange(len(pixels)), seed=seed, settle=settle)
    run_parts(search, parts)
    assert (search.values - pixels).abs().max() <= eps + 1e-6
    assert search.values.min() >= 0
    assert search.values.max() <= 1
    return search


def chosen(name):
    parts = standard_parts(steps=STEPS, targets=TARGETS, queries=QUERIES)
    return parts if name == "auto-attack" else (parts[NAMES.index(name)],)


def is_right(network, pixels, labels):
    with torch.no_grad():
        return network(pixels).argmax(dim=1) == labels


@pytest.mark.filterwarnings("ignore")
def theirs(network, pixels, labels, *, eps, names):
    with torch.random.fork_rng():
        attack = AutoAttack(network, eps=eps, seed=0)
        attack.attacks_to_run = list(names)
        attack.apgd.n_iter = attack.apgd_targeted.n_iter = attack.fab.n_iter = STEPS
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = TARGETS
        attack.square.n_queries = QUERIES
        found = attack.run_standard_evaluation(pixels, labels, batch_size=len(pixels))
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("eps", RADII)
@pytest.mark.parametrize("name", [*NAMES, "auto-attack"])
def test_each_part_leaves_what_its_authors_code_leaves(digits, name, eps):
    network, pixels, labels = (part[:SAMPLES] if isinstance(part, torch.Tensor) else part for part in digits)
    names = NAMES if name == "auto-attack" else (name,)
    left = is_right(network, ours(network, pixels, labels, eps=eps, parts=chosen(name)).values, labels)
    known = is_right(network, theirs(network, pixels, labels, eps=eps, names=names), labels)
    clean = is_right(network, pixels, labels)
    assert left.sum() < clean.sum() - 10
    if name == "square":
        # Theirs never puts a square at the right or lower end, which matters in pictures of 8 x 8.
        assert left.sum() <= known.sum() + 1
    else:
        assert abs(int(left.sum()) - int(known.sum())) <= 1


@pytest.mark.parametrize("eps", RADII)
def test_apgd_ce_and_square_leave_what_another_library_leaves(digits, eps):
    network, pixels, labels = (part[:SAMPLES] if isinstance(part, torch.Tensor) else part for part in digits)
    victim = PyTorchClassifier(
        network, loss=torch.nn.CrossEntropyLoss(), input_shape=(3, 8, 8), nb_classes=10, clip_values=(0.0, 1.0)
    )
    common = {"eps": eps, "batch_size": SAMPLES, "verbose": False}
    by_steps = AutoProjectedGradientDescent(
        victim, eps_step=2 * eps, max_iter=STEPS, nb_random_init=1, loss_type="cross_entropy", **common
    )
    by_squares = SquareAttack(victim, max_iter=QUERIES, nb_restarts=1, **common)
    before = np.random.get_state()  # noqa: NPY002, the other library draws from it
    for name, attack in (("apgd-ce", by_steps), ("square", by_squares)):
        np.random.seed(0)  # noqa: NPY002
        known = is_right(network, torch.from_numpy(attack.generate(pixels.numpy(), labels.numpy())), labels)
        left = is_right(network, ours(network, pixels, labels, eps=eps, parts=chosen(name)).values, labels)
        assert left.sum() <= known.sum() + 1, name
        assert name == "square" or left.sum() >= known.sum() - 3
    np.random.set_state(before)  # noqa: NPY002


def test_auto_pgd_walks_as_its_authors_code_does(digits):
    """Nearly: ours is the paper's algorithm line by line (`test_ascent`), which their code leaves in three details.

    It halves a step also when exactly 3/4 of the last ones rose; it never halves for want of progress at the first
    checkpoint; and after going back it counts a rise from where it was, not from the best point.
    """
    network, pixels, labels = (part[:SAMPLES] if isinstance(part, torch.Tensor) else part for part in digits)
    attack = APGDAttack(network, n_iter=100, eps=0.1, norm="Linf", seed=0, device="cpu", loss="ce")
    attack.init_hyperparam(pixels)
    with torch.random.fork_rng():
        best = attack.attack_single_run(pixels, labels, x_init=pixels)[0]
    everyone = torch.arange(len(pixels))
    scored = digit_scores(network, labels)

    def loss(values):
        return cross_entropy(scored.scores(values, everyone), scored.right, scored.wrong)

    found = auto_ascend(with_gradient(loss), loss, LInfBall(pixels, 0.1), steps=100)
    same = (found - best).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert same.float().mean() > 0.7
    with torch.no_grad():
        assert torch.allclose(loss(found), loss(best), rtol=0.03, atol=0.03)


def slow_losses(scores, right, wrong, target):
    """The three losses of one sample by lists."""
    own = max(float(s) for s, r in zip(scores, right, strict=True) if r)
    others = [float(s) for s, w in zip(scores, wrong, strict=True) if w]
    ahead = float(scores[target]) - own
    ranked = sorted([own, *others], reverse=True)
    ratio = ahead / (ranked[0] - (ranked[2] + ranked[3]) / 2) if len(ranked) >= 4 else ahead
    return max(others) - own, float(np.log(np.exp(np.array([own, *others])).sum())) - own, ratio


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 7))
@settings(max_examples=40, deadline=None)
def test_losses_count_the_best_right_class_and_the_wrong_ones(seed, classes):
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(6, classes, generator=generator)
    kind = torch.randint(3, (6, classes), generator=generator)
    kind[:, 0], kind[:, 1] = 0, 1  # one right and one wrong at least; 2 plays no part
    right, wrong, target = kind == 0, kind == 1, torch.ones(6, dtype=torch.int64)
    leaf = scores.clone().requires_grad_(True)
    losses = [
        lead(leaf, right, wrong),
        cross_entropy(leaf, right, wrong),
        targeted_ratio(leaf, right, wrong, target),
    ]
    for i in range(6):
        expected = slow_losses(scores[i], right[i], wrong[i], 1)
        assert [float(loss[i].detach()) for loss in losses] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    (slope,) = torch.autograd.grad(sum(loss.sum() for loss in losses), leaf)
    assert slope.isfinite().all()
    assert (slope[kind == 2] == 0).all()


def test_one_right_class_gives_the_usual_cross_entropy(digits):
    network, pixels, labels = digits
    scores = network(pixels)
    right = torch.nn.functional.one_hot(labels, 10).bool()
    usual = torch.nn.functional.cross_entropy(scores, labels, reduction="none")
    assert torch.allclose(cross_entropy(scores, right, ~right), usual, atol=1e-5)


@given(seed=st.integers(0, 10_000), rise=st.floats(-6, 6))
@settings(max_examples=40, deadline=None)
def test_the_way_to_a_plane_is_the_shortest(seed, rise):
    generator = torch.Generator().manual_seed(seed)
    point, normal = torch.rand(1, 5, generator=generator), torch.randn(1, 5, generator=generator)
    unit = torch.rand(1, 5, generator=generator) + 0.1
    ball = LInfBall(point, 1.0, unit)
    step = ball.to_plane(point, normal, torch.tensor([rise]))
    assert ((point + step > -1e-6) & (point + step < 1 + 1e-6)).all()
    # Smallest r with |step_i| <= r unit_i, 0 <= point + step <= 1 and normal . step = rise.
    x, w, u = (values[0].double().numpy() for values in (point, normal, unit))
    limits = np.vstack([np.c_[np.eye(5), -u], np.c_[-np.eye(5), -u]])
    best = linprog(
        [0] * 5 + [1],
        A_ub=limits,
        b_ub=np.zeros(10),
        A_eq=[[*w, 0]],
        b_eq=[rise],
        bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
    )
    if best.status == 2:  # out of reach: all the way
        assert torch.allclose(point + step, ((normal * rise) > 0).float(), atol=1e-5)
        return
    assert float((step * normal).sum()) == pytest.approx(rise, abs=1e-4)
    assert float(ball.length(step)) == pytest.approx(best.fun, rel=1e-3, abs=1e-4)


def test_a_sample_with_several_right_classes_is_lost_when_all_are_beaten(digits):
    network, pixels, labels = (part[:SAMPLES] if isinstance(part, torch.Tensor) else part for part in digits)
    one = torch.nn.functional.one_hot(labels, 10).bool()
    two = one | one.roll(1, dims=1)
    with torch.no_grad():
        second = network(pixels).masked_fill(one, -torch.inf).argmax(dim=1)
    runner_up = one | torch.nn.functional.one_hot(second, 10).bool()
    left = []
    for right in (one, two, runner_up):
        scored = ClassScores(lambda values, rows: network(values), right, ~right)
        search = Search(scored, LInfBall(pixels, 0.15), ids=torch.arange(len(pixels)), seed=0)
        run_parts(search, chosen("apgd-ce") + chosen("apgd-t"))
        with torch.no_grad():
            answers = network(search.values).argmax(dim=1)
        kept = right.gather(1, answers[:, None]).squeeze(1)
        assert torch.equal(kept, search.lead < 0)
        left.append(int(kept.sum()))
    assert left[0] < left[1] < left[2]


def test_what_is_lost_is_not_attacked_again(digits):
    network, pixels, labels = (part[:SAMPLES] if isinstance(part, torch.Tensor) else part for part in digits)
    scored, asked = digit_scores(network, labels), []

    def scores(values, rows):
        asked.append(len(rows))
        return network(values)

    counted = ClassScores(scores, scored.right, scored.wrong)
    search = Search(counted, LInfBall(pixels, 0.15), ids=torch.arange(SAMPLES), seed=0)
    run_parts(search, standard_parts(steps=5, targets=2, queries=120))
    right, left = int(is_right(network, pixels, labels).sum()), int(is_right(network, search.values, labels).sum())
    assert asked[1] == right  # the first look is at all, the first step at those that are right
    assert asked[-1] < right
    assert asked[1:] == sorted([n for n in asked[1:] if n != SAMPLES], reverse=True) or SAMPLES in asked[1:]
    lost = int((search.lead >= 0).sum())
    assert lost == SAMPLES - left


def test_only_what_is_lost_as_stored_is_lost(digits):
    network, pixels, labels = (part[:SAMPLES] if isinstance(part, torch.Tensor) else part for part in digits)

    def to_sixteenths(values, rows):
        low, high = (pixels[rows] - 0.1).clamp(min=0) * 16, (pixels[rows] + 0.1).clamp(max=1) * 16
        return torch.minimum(torch.maximum(torch.round(values * 16), low.ceil()), high.floor()) / 16

    for name in NAMES:
        search = ours(network, pixels, labels, eps=0.1, parts=chosen(name), settle=to_sixteenths)
        moved = search.values != pixels
        assert ((search.values * 16).frac().abs()[moved] < 1e-6).all()
        assert torch.equal(is_right(network, search.values, labels), search.lead < 0), name


@pytest.mark.parametrize("more", [{"targets": 4}, {"restarts": 3}])
def test_more_targets_and_restarts_never_leave_more(digits, more):
    network, pixels, labels = (part[:SAMPLES] if isinstance(part, torch.Tensor) else part for part in digits)
    few = {"steps": 5, "targets": 1, "restarts": 1, "queries": 20}
    # Without squares, whose size shrinks with the number of queries, not with that of restarts.
    for position in range(3):
        less, many = (standard_parts(**options)[position] for options in (few, few | more))
        before = ours(network, pixels, labels, eps=0.1, parts=(less,))
        after = ours(network, pixels, labels, eps=0.1, parts=(many,))
        assert ((after.lead >= 0) >= (before.lead >= 0)).all()


@pytest.mark.parametrize("name", ["auto-attack", *NAMES])
def test_images_lose_their_texts_and_lost_ones_stay_clean(tiny_clip, toy_batch, name):
    everyone = torch.arange(len(toy_batch.pixels))
    # An untrained model finds nothing: call right what it ranks first, for all images but one.
    with torch.no_grad():
        first = image_scores(tiny_clip, toy_batch).scores(toy_batch.pixels, everyone).argmax(dim=1)
    first[0] = (first[0] + 1) % len(toy_batch.texts)
    batch = replace(toy_batch, links=torch.stack([everyone, first], dim=1))
    scored = image_scores(tiny_clip, batch)
    attack = make_attack(name, **QUICK[name])
    lost = []
    for eps in (0, 8, 24):
        found = attack(tiny_clip, batch, threat=ThreatModel(image=LInf(eps / 255)), seed=0)
        with torch.no_grad():
            lost.append(scored.lead(found.pixels, everyone) >= 0)
        assert torch.equal(found.pixels[0], batch.pixels[0])
    assert lost[0].tolist() == [True] + [False] * (len(everyone) - 1)
    assert lost[2].sum() > 1
    assert lost[1].sum() <= lost[2].sum()


def test_some_of_the_parts_in_an_order_of_ones_own():
    from crossguard.attacks.auto_attack import AutoAttack
    from crossguard.attacks.class_search import CrossEntropyPart, TargetedPart

    chosen = AutoAttack(parts=["apgd-t", "apgd-ce"], steps=7).parts
    assert [type(part) for part in chosen] == [TargetedPart, CrossEntropyPart]
    assert [part.steps for part in chosen] == [7, 7]
    assert len(AutoAttack().parts) == 4
    with pytest.raises(ValueError, match="Unknown part of auto-attack 'apgd'"):
        AutoAttack(parts=["apgd"])
    with pytest.raises(ValueError, match="at least one"):
        AutoAttack(parts=[])
