"""Auto-PGD in runs that double: any number of steps begins as every smaller one does, and what is done costs nothing."""

import pytest
import torch

from crossguard.attacks import LInfBall, auto_maximise
from crossguard.attacks.ladder import ascend_in_runs, runs


def some_loss(seed, done_above=None, seen=None):
    """A bumpy loss of every row, told apart by number."""
    rng = torch.Generator().manual_seed(seed)
    ways, waves = torch.randn(2, 6, 12, generator=rng)

    def loss(pixels, rows):
        if seen is not None:
            seen.append(rows)
        flat = pixels.flatten(1)
        value = (flat * ways[rows]).sum(1) + torch.sin(40 * (flat * waves[rows]).sum(1))
        done = torch.zeros(len(rows), dtype=torch.bool) if done_above is None else value.detach() > done_above
        return value, value, done

    return loss


@pytest.fixture
def pixels():
    return torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("steps", "lengths"), [(5, [5]), (9, [5]), (10, [5, 5]), (39, [5, 5, 10]), (80, [5, 5, 10, 20, 40])]
)
def test_runs_double(steps, lengths):
    assert runs(steps) == lengths


def test_more_steps_begin_as_fewer_do(pixels):
    for seed in range(5):
        found = {}
        for steps in (5, 10, 20, 40):
            seen = []
            found[steps] = list(ascend_in_runs(some_loss(seed, seen=seen), LInfBall(pixels, 0.1), pixels, steps=steps))
            assert len(seen) == steps
        for number, (run, rows, best) in enumerate(found[40]):
            assert run == number
            assert bool(((best - pixels[rows]).abs() <= 0.1 + 1e-6).all())
            for fewer in (f for f in found.values() if len(f) > number):
                assert torch.equal(fewer[number][1], rows)
                assert torch.equal(fewer[number][2], best)
        loss = some_loss(seed)
        for before, after in zip(found[40], found[40][1:], strict=False):
            last = {int(i): b for i, b in zip(before[1], before[2], strict=True)}
            for row, best in zip(after[1].tolist(), after[2], strict=True):
                if row in last:
                    here = torch.tensor([row])
                    assert float(loss(best[None], here)[0]) > float(loss(last[row][None], here)[0])


def test_one_run_is_auto_pgd_without_its_last_look(pixels):
    """Of the same number of steps, but for the last point, which Auto-PGD looks at too."""
    for seed in range(5):
        loss = some_loss(seed)
        rows = torch.arange(len(pixels))
        ((_, moved, best),) = ascend_in_runs(loss, LInfBall(pixels, 0.1), pixels, steps=5)
        assert torch.equal(moved, rows)
        values = []
        auto_maximise(lambda x: values.append(x.detach()) or loss(x, rows)[0], LInfBall(pixels, 0.1), steps=5)  # noqa: B023
        looked = torch.stack([loss(x, rows)[0] for x in values[:5]])
        assert torch.allclose(loss(best, rows)[0], looked.amax(dim=0))


def test_who_is_done_moves_no_more(pixels):
    seen = []
    rows = torch.arange(len(pixels))
    clean = some_loss(3)(pixels, rows)[0]
    border = float(clean.sort().values[2:4].mean())
    found = list(ascend_in_runs(some_loss(3, done_above=border, seen=seen), LInfBall(pixels, 0.2), pixels, steps=20))
    best = pixels.clone()
    for _, moved, here in found:
        best[moved] = here
    for row in range(len(pixels)):
        looked = [k for k, asked in enumerate(seen) if row in asked.tolist()]
        assert looked == list(range(len(looked)))
        if clean[row] > border:
            assert len(looked) == 1
            assert torch.equal(best[row], pixels[row])
    assert sum(map(len, seen)) < 20 * len(pixels)
