"""Losses with momentum encoders and queues against loops written from the papers, in one process and in two."""

import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st

from crossguard.models.fusion_losses import draw_negatives, matching_loss, soft_cross_entropy, soft_targets
from crossguard.models.momentum import MomentumTraining, linked
from crossguard.models.queues import FeatureQueue, gather
from fusion_models import make_albef

# Image 0 has texts 0 and 1; text 2 has images 1 and 2; text 5's image is 3; image 9 and text 9 are in no batch but 9-9.
LINKS = torch.tensor([[0, 0], [0, 1], [1, 2], [2, 2], [3, 5], [9, 9], [4, 4]])
TEXTS = ["a red disc", "the blue square", "a dog on the left", "small cross", "picture of the man"]
TEXT_IDS = torch.tensor([0, 1, 2, 5, 4])
IMAGE_IDS = torch.tensor([0, 1, 2, 3, 4])


def pixels(seed, count=5):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def training(tmp_path):
    return MomentumTraining(make_albef(tmp_path), links=LINKS, queue_size=12, alpha=0.4).train()


def is_pair(image, text):
    return [int(image), int(text)] in LINKS.tolist()


def plain_loss(training, image_pixels, queues, generator):
    """ITC and ITM row by row. `queues`: lists of (embedding, id) of images and of texts, pushed before."""
    model, copy = training.model, training.copy

    def unit(x):
        return x / x.square().sum(-1, keepdim=True).sqrt()

    scale = 1 / model.network.temp
    images, texts = unit(model.encode_image(image_pixels)), unit(model.encode_text(TEXTS))
    images_m, texts_m = unit(copy.encode_image(image_pixels)).detach(), unit(copy.encode_text(TEXTS)).detach()
    sides = (
        (images, images_m, IMAGE_IDS, [*zip(texts_m, TEXT_IDS, strict=True), *queues[1]], is_pair),
        (texts, texts_m, TEXT_IDS, [*zip(images_m, IMAGE_IDS, strict=True), *queues[0]], lambda t, i: is_pair(i, t)),
    )
    itc, scores = 0.0, []
    for own, own_m, ids, others, pair in sides:
        rows = []
        for embedding, embedding_m, number in zip(own, own_m, ids, strict=True):
            logits = torch.stack([scale * (embedding @ other) for other, _ in others])
            logits_m = torch.stack([scale.detach() * (embedding_m @ other) for other, _ in others])
            true = torch.tensor([float(pair(number, other)) for _, other in others])
            target = 0.4 * logits_m.exp() / logits_m.exp().sum() + 0.6 * true / true.sum()
            itc = itc - 0.5 * (target * (logits.exp() / logits.exp().sum()).log()).sum() / len(own)
            rows.append(logits[: len(ids)].detach())
        scores.append(torch.stack(rows))
    true = torch.tensor([[is_pair(i, t) for t in TEXT_IDS] for i in IMAGE_IDS])
    chosen = []
    for matrix, mask in ((scores[0], true), (scores[1], true.T)):
        weights = torch.where(mask, 0.0, matrix.exp()).contiguous()  # draws follow the layout in memory
        chosen.append(torch.multinomial(weights / weights.sum(1, keepdim=True), 1, generator=generator)[:, 0])
    pairs = [(i, j, 1) for i in range(5) for j in range(5) if true[i, j]]
    pairs += [(int(i), j, 0) for j, i in enumerate(chosen[1])] + [(i, int(j), 0) for i, j in enumerate(chosen[0])]
    states, words = model.encode_image_states(image_pixels), model.encode_text_states(TEXTS)
    itm = 0.0
    for i, j, label in pairs:
        logits = model.match(states, words, torch.tensor([[i, j]]))[0]
        itm = itm - (logits[label].exp() / logits.exp().sum()).log() / len(pairs)
    return itc, itm


def step(training, seed):
    return training(pixels(seed), TEXTS, image_ids=IMAGE_IDS, text_ids=TEXT_IDS, generator=draws(seed))


def test_losses_equal_the_plain_ones_over_several_steps_with_full_queues(training):
    """The queues of 12 overflow in the third step; the model moves in between, so that copy and model differ."""
    queue_images, queue_texts = [], []
    for number in range(4):
        with torch.no_grad():
            for parameter in training.model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=draws(number)) * 0.02)
            for old, new in zip(training.copy.parameters(), training.model.parameters(), strict=True):
                old.copy_(old + 0.5 * (old - new))  # far behind; `follow` moves it by 0.5 % of the way
            moved = [
                0.995 * o + 0.005 * n
                for o, n in zip(training.copy.parameters(), training.model.parameters(), strict=True)
            ]
        found = step(training, number)
        for have, want in zip(training.copy.parameters(), moved, strict=True):
            torch.testing.assert_close(have, want)
        itc, itm = plain_loss(training, pixels(number), (queue_images[-12:], queue_texts[-12:]), draws(number))
        torch.testing.assert_close(found.itc, itc, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.itm, itm, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.total, itc + itm, atol=1e-5, rtol=1e-5)
        unit = torch.nn.functional.normalize
        queue_images += [
            *zip(unit(training.copy.encode_image(pixels(number)), dim=-1).detach(), IMAGE_IDS, strict=True)
        ]
        queue_texts += [*zip(unit(training.copy.encode_text(TEXTS), dim=-1).detach(), TEXT_IDS, strict=True)]


def test_gradients_reach_every_weight_and_the_pixels_but_not_the_copy(training):
    image_pixels = pixels(0).requires_grad_()
    found = training(image_pixels, TEXTS, image_ids=IMAGE_IDS, text_ids=TEXT_IDS, generator=draws())
    found.total.backward()
    silent = [name for name, p in training.model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in silent if ".key.bias" not in name] == []  # a shift of all keys changes no softmax
    assert image_pixels.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    assert all(p.grad is None for p in training.copy.parameters())


def test_an_inner_attack_changes_nothing(training):
    step(training, 0)
    before = {key: value.clone() for key, value in training.state_dict().items()}
    believed = training.believe(pixels(1), TEXTS)
    for seed in range(2):
        training.losses(
            training.model.encode_image_states(pixels(seed)),
            training.model.encode_text_states(TEXTS),
            believed,
            image_ids=IMAGE_IDS,
            text_ids=TEXT_IDS,
            generator=draws(),
        )
    assert all(torch.equal(value, before[key]) for key, value in training.state_dict().items())


def test_the_state_resumes(training, tmp_path):
    step(training, 0)
    torch.save(training.state_dict(), tmp_path / "state.pt")
    again = MomentumTraining(make_albef(tmp_path / "b", seed=7), links=LINKS, queue_size=12).train()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(step(again, 1).total, step(training, 1).total)


def test_chosen_pairs_are_matched_alone(training):
    states, words = training.model.encode_image_states(pixels(0)), training.model.encode_text_states(TEXTS)
    believed = training.believe(pixels(0), TEXTS)
    ids = {"image_ids": IMAGE_IDS, "text_ids": TEXT_IDS}
    one = training.losses(states, words, believed, **ids, generator=draws(), matched=torch.tensor([[0, 1]]))
    every = training.losses(states, words, believed, **ids, generator=draws())
    assert torch.equal(one.itc, every.itc)
    assert not torch.equal(one.itm, every.itm)


@pytest.mark.parametrize(
    ("options", "message"), [({"momentum": 1.0}, "momentum"), ({"alpha": -0.1}, "alpha"), ({"queue_size": 0}, "queue")]
)
def test_options_out_of_range(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        MomentumTraining(make_albef(tmp_path), links=LINKS, **options)


def test_partners_must_be_in_the_batch(training):
    with pytest.raises(ValueError, match="true pair in every row, but 1 of 5"):
        training(pixels(0), TEXTS, image_ids=torch.tensor([0, 1, 2, 3, 9]), text_ids=TEXT_IDS, generator=draws())


class TestTargets:
    def test_closed_form(self):
        logits = torch.tensor([[0.0, math.log(3.0), 0.0]])
        target = soft_targets(torch.tensor([[True, False, True]]), logits, alpha=0.5)
        torch.testing.assert_close(target, torch.tensor([[0.1 + 0.25, 0.3, 0.1 + 0.25]]))
        loss = soft_cross_entropy(torch.zeros(1, 3), target)
        torch.testing.assert_close(loss, torch.tensor([math.log(3)]))

    def test_alpha(self):
        with pytest.raises(ValueError, match="alpha"):
            soft_targets(torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1), alpha=1.5)


class TestNegatives:
    @given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 99))
    def test_never_a_true_pair_and_one_per_row_that_has_any(self, rows, columns, seed):
        generator = draws(seed)
        positives = torch.rand(rows, columns, generator=generator) < 0.5
        pairs = draw_negatives(torch.randn(rows, columns, generator=generator) * 1000, positives, generator=generator)
        assert pairs[:, 0].tolist() == torch.nonzero(~positives.all(1))[:, 0].tolist()
        assert not positives[pairs[:, 0], pairs[:, 1]].any()

    def test_frequencies_are_the_softmax_over_the_others(self):
        logits = torch.tensor([[500.0, 0.0, math.log(3.0)]]).expand(4000, 3)
        pairs = draw_negatives(logits, torch.tensor([[True, False, False]]).expand(4000, 3), generator=draws())
        assert abs((pairs[:, 1] == 2).float().mean().item() - 0.75) < 0.03  # 4 standard deviations

    def test_loss_of_certain_answers(self):
        right, wrong = torch.tensor([[0.0, 50.0]]), torch.tensor([[50.0, 0.0], [50.0, 0.0]])
        assert matching_loss(right, wrong).item() < 1e-6
        torch.testing.assert_close(matching_loss(wrong[:1], right).item(), 50.0)


@given(st.integers(0, 999))
def test_linked_equals_a_loop(seed):
    generator = np.random.default_rng(seed)
    links = torch.from_numpy(np.unique(generator.integers(0, 6, (int(generator.integers(1, 20)), 2)), axis=0))
    links = links[torch.randperm(len(links), generator=draws(seed))]
    images, texts = (torch.from_numpy(generator.integers(-1, 8, int(generator.integers(1, 9)))) for _ in range(2))
    slow = [[[int(i), int(t)] in links.tolist() for t in texts] for i in images]
    assert linked(links, images, texts).tolist() == slow


@given(st.integers(1, 7), st.lists(st.integers(1, 9), max_size=6))
def test_a_queue_keeps_the_last_entries(size, batches):
    queue, pushed = FeatureQueue(size, 1), []
    for count in batches:
        new = torch.arange(len(pushed), len(pushed) + count)
        queue.push(new.float().unsqueeze(1), new)
        pushed += new.tolist()
    features, ids = queue.entries()
    assert sorted(ids.tolist()) == pushed[-size:]
    assert features[:, 0].tolist() == ids.tolist()


def test_one_process_gathers_itself():
    values = torch.arange(3)
    assert gather(values) is values


def _worker(rank, folder):
    """Two steps in one of two processes, each on its own pictures."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    training = MomentumTraining(make_albef(Path(folder) / str(rank)), links=LINKS, queue_size=12).train()
    losses = [step(training, 10 * number + rank).total.item() for number in range(2)]
    torch.save({"losses": losses, **training.state_dict()}, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_two_processes_fill_equal_queues_as_one_would(tmp_path):
    # A copy of this process need not import everything again; with a GPU, autograd has threads that no copy has.
    start = "spawn" if torch.cuda.is_available() else "fork"
    other = mp.get_context(start).Process(target=_worker, args=(1, str(tmp_path)))
    other.start()
    _worker(0, str(tmp_path))
    other.join(120)
    assert other.exitcode == 0
    states = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for key in ("images.features", "images.ids", "texts.features", "texts.ids", "images.pushed"):
        assert torch.equal(states[0][key], states[1][key])
    alone = MomentumTraining(make_albef(tmp_path), links=LINKS, queue_size=12).train()
    expected = [[], []]
    for number in range(2):
        alone.follow()
        believed = [alone.believe(pixels(10 * number + rank), TEXTS) for rank in range(2)]
        for rank in range(2):
            losses = alone.losses(
                alone.model.encode_image_states(pixels(10 * number + rank)),
                alone.model.encode_text_states(TEXTS),
                believed[rank],
                image_ids=IMAGE_IDS,
                text_ids=TEXT_IDS,
                generator=draws(10 * number + rank),
            )
            expected[rank].append(losses.total.item())
        for part in believed:
            alone.enqueue(part, image_ids=IMAGE_IDS, text_ids=TEXT_IDS)
    torch.testing.assert_close(states[0]["images.features"], alone.images.features)
    torch.testing.assert_close(states[1]["texts.features"], alone.texts.features)
    assert [s["losses"] for s in states] == [pytest.approx(row, abs=1e-5) for row in expected]
