"""Counts add up, and files are whole or refused."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.certify import Counts
from crossguard.certify.counts import share_of


def counts_of(*spans, votes=None):
    total = sum(stop - start for start, stop in spans)
    votes = np.array([[total, 0], [0, total]]) if votes is None else votes
    return Counts(votes=votes, spans=spans, seed=3, n={"x": 9}, k={"x": 2}, source="abc")


def test_a_part_of_a_published_design_proves_nothing():
    whole = replace(counts_of((0, 9)), scheme="fixed")
    assert whole.margins({"x": "substitution"}).at([(1,)])[0] == 2 * 2 / 9
    for spans in (((0, 4), (5, 9)), ((1, 9),)):
        with pytest.raises(ValueError, match="votes of all draws of a published design"):
            replace(counts_of(*spans), scheme="fixed").margins({"x": "substitution"})


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=5), st.integers(0, 30), st.integers(0, 30))
def test_missing_draws_are_those_not_counted(pairs, start, stop):
    have, spans = set(), []
    for first, last in pairs:
        if not have & set(range(first, last)):
            have |= set(range(first, last))
            spans.append((first, last))
    counts = counts_of(*[span for span in spans if span[0] < span[1]])
    missing = [draw for span in counts.missing(start, stop) for draw in range(*span)]
    assert missing == sorted(set(range(start, stop)) - have)
    assert counts.draws == len(have)


def test_votes_add_whatever_the_order():
    parts = [counts_of((0, 4)), counts_of((9, 12)), counts_of((4, 9))]
    total = parts[0] + parts[1] + parts[2]
    assert total.spans == ((0, 12),)
    assert (total.votes == (parts[2] + (parts[1] + parts[0])).votes).all()
    assert total.draws == 12
    with pytest.raises(ValueError, match=r"counted once, but 4\.\.8 are twice"):
        total + parts[2]
    for changes in ({"seed": 4}, {"n": {"x": 10}}, {"k": {"x": 3}}, {"source": "other"}, {"scheme": "joint"}):
        with pytest.raises(ValueError, match=f"same `{next(iter(changes))}`"):
            parts[0] + replace(parts[1], **changes)
    with pytest.raises(ValueError, match="equal shape"):
        parts[0] + counts_of((20, 22), votes=np.array([2, 0]))


def test_wrong_votes_are_refused():
    with pytest.raises(ValueError, match=r"4 votes for every element.*3\.\.4"):
        counts_of((0, 4), votes=np.array([[4, 0], [2, 1]]))
    with pytest.raises(ValueError, match=">= 0"):
        counts_of((0, 4), votes=np.array([[5, -1]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"votes": np.array([[4.0, 0.0]])}, "integer type, but got float64"),
        ({"votes": np.array([[3.5, 0.5]])}, "integer type, but got float64"),
        ({"k": {"x": 10}}, "k = 10 kept of n = 9"),
        ({"n": {"x": 0}, "k": {"x": 0}}, ">= 1"),
        ({"n": {}, "k": {}}, "at least one modality"),
        ({"k": {"y": 2}}, r"modalities \('x',\), but got \('y',\)"),
        ({"scheme": "joined"}, "did you mean 'joint'"),
    ],
)
def test_counts_that_cannot_be_are_refused(unchecked, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(counts_of((0, 4), votes=np.array([[4, 0]])), **changes)


def test_votes_cannot_be_changed_from_outside():
    votes = np.array([[4, 0]])
    counts = counts_of((0, 4), votes=votes)
    votes[:] = 0
    assert counts.votes.tolist() == [[4, 0]]
    with pytest.raises(ValueError, match="read-only"):
        counts.votes[0, 0] = 1


def test_a_file_brings_back_the_same_counts(tmp_path):
    counts = counts_of((0, 4), (6, 7))
    counts.save(tmp_path / "counts" / "a.npz")
    found = Counts.load(tmp_path / "counts" / "a.npz")
    assert (found.votes == counts.votes).all()
    assert replace(found, votes=counts.votes).spans == counts.spans
    assert (found.seed, found.n, found.k, found.source) == (3, {"x": 9}, {"x": 2}, "abc")
    assert [path.name for path in (tmp_path / "counts").iterdir()] == ["a.npz"]


def test_broken_files_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(ValueError, match="could not be read"):
        Counts.load(path)
    counts_of((0, 4)).save(path)
    content = path.read_bytes()
    for broken in (b"", b"not a zip", content[: len(content) // 2], content[:-8]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="could not be read"):
            Counts.load(path)
    for place in range(len(content)):  # no other error
        wrong = bytearray(content)
        wrong[place] ^= 0xFF
        path.write_bytes(wrong)
        with suppress(ValueError):
            Counts.load(path)
    np.savez(path, votes=np.array([[object()]], dtype=object), about=np.array("{}"))
    with pytest.raises(ValueError, match="could not be read"):
        Counts.load(path)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9))
def test_processes_share_every_draw_once(start, length, processes):
    taken = [d for rank in range(processes) for d in range(*share_of((start, start + length), rank, processes))]
    assert taken == list(range(start, start + length))
