import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from crossguard.attacks.noise import normal, uniform


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=5), st.integers(0, 2**64), st.integers(0, 99))
def test_a_row_depends_on_its_id_alone(ids, seed, stream):
    for draw in (uniform, normal):
        together = draw(torch.tensor(ids), (2, 3), seed=seed, stream=stream)
        for row, sample in zip(together, ids, strict=True):
            assert torch.equal(row, draw(torch.tensor([sample]), (2, 3), seed=seed, stream=stream)[0])


def test_distributions_and_independence():
    ids = torch.arange(64)
    flat = uniform(ids, (1000,), seed=1)
    assert 0 <= float(flat.min()) <= float(flat.max()) < 1
    assert stats.kstest(flat.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal(ids, (999,), seed=1).flatten().numpy(), "norm").pvalue > 1e-3
    # Rows of neighbouring ids, of neighbouring seeds and streams, and a row against itself one place on.
    others = [
        flat.roll(1, dims=0),
        flat.roll(1, dims=1),
        uniform(ids, (1000,), seed=2),
        uniform(ids, (1000,), seed=1, stream=1),
        uniform(ids, (1000,), seed=0, stream=1),
    ]
    for other in others:
        correlation = np.corrcoef(flat.flatten().numpy(), other.flatten().numpy())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(flat.numel())


def test_bits_are_fair():
    bits = (uniform(torch.arange(32), (2048,), seed=9) * 2**24).long()
    for place in range(24):
        share = float(((bits >> place) & 1).float().mean())
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(bits.numel())


@given(st.integers(0, 2**62), st.integers(0, 2**64), st.integers(0, 2**40))
def test_values_are_those_of_the_hash_in_whole_numbers(sample, seed, stream):
    def mix(x):
        x = ((x ^ (x >> 16)) * 0x21F0AAAD) % 2**32
        x = ((x ^ (x >> 15)) * 0x735A2D97) % 2**32
        return x ^ (x >> 15)

    def fold(value):
        return (value ^ (value >> 32)) % 2**32

    def salted(value, salt):
        return fold((value * 0x9E3779B97F4A7C15 + salt * 0xD1B54A32D192ED03) % 2**64)

    first, second = (mix(mix(mix(fold(sample)) ^ salted(seed, s)) ^ salted(stream, s + 1)) for s in (1, 3))
    told = [(mix((mix(place ^ first) + second) % 2**32) >> 8) / 2**24 for place in range(5)]
    assert uniform(torch.tensor([sample]), (5,), seed=seed, stream=stream)[0].tolist() == told
