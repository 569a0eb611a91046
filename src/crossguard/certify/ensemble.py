"""The deterministic certificate of a published ensemble: sub-samples that are drawn once and vote on every input.

The model *is* the vote of these N sub-samples. Whoever edits r_i elements of every modality i touches at most T(r) of
them, and a touched one may turn from the winner A to another label B. Ties go to the first label, so A stands against
every attack within r where

    v_A - v_B >= 2 T(r) for every later label B,    v_A - v_B > 2 T(r) for every earlier one.

No alpha, no secret and no sampling error; it holds for all radii and all elements (pixels) at once. Substitutions only.
"""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Int64

from crossguard.certify.arguments import Radii, radius_vectors, vote_counts, whole_number
from crossguard.certify.leaders import most_votes


def certify_votes(
    votes: npt.ArrayLike,
    degrees: Sequence[npt.ArrayLike],
    radii: Radii,
    *,
    held: Sequence[npt.ArrayLike] | None = None,
) -> Bool[np.ndarray, "*radii_elements"]:
    """Return which labels no edit within each radius vector can change, whatever the sub-samples were.

    T(r) is the sum, over the modalities, of the r_i largest degrees.

    Args:
        votes: integers [..., labels], votes of the N sub-samples for each label; N is the same for every element.
        degrees: per modality, how many of the N sub-samples hold each of its elements, integers [n_i].
        radii: radius vectors, one entry per modality.
        held: per modality, votes for each label of the sub-samples that hold each element, integers
            [..., n_i, labels]. With them the bound is tighter: a touched sub-sample weighs 2 only if it voted for A,
            nothing if it voted for B, and 1 otherwise, so that an element weighs its degree, and its votes for A more
            and those for B less.

    Returns:
        bool [len(radii), ...].

    Raises:
        ValueError: votes or degrees that no N sub-samples can have, `held` that does not add up to the degrees, or
            radii that do not fit.

    Example:
        >>> certify_votes([9, 1], [[2, 2, 1]], [(1,), (2,), (3,)])
        array([ True,  True, False])
    """
    counts, draws = vote_counts(votes)
    parts = [_degrees(values, draws, i) for i, values in enumerate(degrees)]
    vectors = radius_vectors(radii, tuple(map(len, parts)), ("substitution",) * len(parts))
    if held is None:
        return _stands(leads(counts), 2 * touched_by_degrees(parts, vectors))
    if len(held) != len(parts):
        raise ValueError(f"Expected `held` with one entry per modality ({len(parts)}), but got {len(held)}.")
    tables = [_held(values, counts, part, i) for i, (values, part) in enumerate(zip(held, parts, strict=True))]
    label, top = most_votes(counts)
    stands = np.ones((len(vectors), *label.shape), dtype=bool)
    for other in range(counts.shape[-1]):
        lost = sum(_gathered(table, label, other, r) for table, r in zip(tables, vectors.T, strict=True))
        lead = top - counts[..., other] - (other < label)
        stands &= (lead >= lost) | (label == other)
    return stands


def certify_product(votes: npt.ArrayLike, blocks: Sequence[int], radii: Radii) -> Bool[np.ndarray, "*radii_elements"]:
    """Return which labels no edit can change where every tuple of blocks of elements has voted.

    Modality i is cut into m_i disjoint blocks, and all N = m_1 * ... * m_T tuples of one block per modality vote. r_i
    edits reach at most r_i blocks, so that T(r) = N - prod_i (m_i - min(r_i, m_i)): a tuple that is touched in two
    modalities counts once.

    Args:
        votes: integers [..., labels], of all N tuples.
        blocks: m_i of every modality; 0 for one of which nothing is kept, so that no edit to it matters.
        radii: radius vectors, one entry per modality.

    Returns:
        bool [len(radii), ...].

    Raises:
        ValueError: another number of votes than there are tuples, or numbers that are not whole or negative.

    Example:
        >>> certify_product([15, 1], (4, 4), [(1, 1), (1, 2), (2, 0)])
        array([ True, False, False])
    """
    counts, draws = vote_counts(votes)
    sizes = tuple(whole_number(m, f"blocks[{i}]") for i, m in enumerate(blocks))
    tuples = tuple_count(sizes)
    if draws != tuples:
        raise ValueError(f"Expected the votes of all {tuples} tuples of blocks {sizes}, but got {draws} votes.")
    vectors = radius_vectors(radii, sizes, ("insertion",) * len(sizes))  # there are more elements than blocks
    return _stands(leads(counts), 2 * touched_by_blocks(sizes, vectors))


def leads(votes: Int64[np.ndarray, "*elements labels"]) -> Int64[np.ndarray, "*elements"]:
    """Return how many votes the first label of most votes is ahead, less one where a tie would go to the other."""
    label, top = most_votes(votes)
    rival = np.full(label.shape, np.iinfo(np.int64).min)
    for other in range(votes.shape[-1]):
        ahead = votes[..., other] + (other < label)
        np.maximum(rival, ahead, out=rival, where=label != other)
    return np.asarray(top - rival)


def touched_by_degrees(
    degrees: Sequence[Int64[np.ndarray, " _"]], vectors: Int64[np.ndarray, "radii modalities"]
) -> Int64[np.ndarray, " radii"]:
    """Return T(r): the sums of the r_i largest degrees."""
    sums = [np.concatenate([[0], np.cumsum(np.sort(part)[::-1])]) for part in degrees]
    return np.asarray(np.sum([path[r] for path, r in zip(sums, vectors.T, strict=True)], axis=0, dtype=np.int64))


def touched_by_blocks(
    blocks: tuple[int, ...], vectors: Int64[np.ndarray, "radii modalities"]
) -> Int64[np.ndarray, " radii"]:
    """Return T(r) of all tuples of blocks; a modality of 0 blocks is never looked at."""
    left = np.ones(len(vectors), dtype=np.int64)
    for m, r in zip(blocks, vectors.T, strict=True):
        left *= m - np.minimum(r, m) if m else 1
    return tuple_count(blocks) - left


def tuple_count(blocks: tuple[int, ...]) -> int:
    """Return how many tuples of one block per modality there are."""
    return int(np.prod([m or 1 for m in blocks], dtype=object))


def block_counts(n: Mapping[str, int], k: Mapping[str, int]) -> tuple[int, ...]:
    """Return the number of blocks of each modality, ceil(n / k), and 0 where nothing is kept."""
    return tuple(ceil(size / k[m]) if k[m] else 0 for m, size in n.items())


def best_draws(n: Mapping[str, int], k: Mapping[str, int], most: int) -> int:
    """Return the N of a "fixed" design, `most` / 2 < N <= `most`, that wastes least: the largest among equals.

    N k / n should lie at or just below a whole number, since an attacker takes the elements that most draws hold.
    """
    kept = [(size, k[m]) for m, size in n.items() if k[m]]

    def waste(draws: int) -> float:
        return sum(ceil(draws * keep / size) * size / (draws * keep) for size, keep in kept)

    return min(range(most, most // 2, -1), key=lambda draws: round(waste(draws), 12))


def _stands(
    lead: Int64[np.ndarray, "*elements"], needed: Int64[np.ndarray, " radii"]
) -> Bool[np.ndarray, "*radii_elements"]:
    return np.asarray(lead >= needed.reshape((-1,) + (1,) * lead.ndim))


def _degrees(values: npt.ArrayLike, draws: int, modality: int) -> Int64[np.ndarray, " elements"]:
    part = np.asarray(values)
    if part.ndim != 1 or part.size == 0 or not np.issubdtype(part.dtype, np.integer):
        raise ValueError(
            f"Expected `degrees[{modality}]` to be integers [elements], but got {part.dtype} {list(part.shape)}."
        )
    if part.min() < 0 or part.max() > draws:
        raise ValueError(
            f"Expected `degrees[{modality}]` in 0..{draws}, the number of votes, but got {part.min()}..{part.max()}: "
            "these votes do not come from this design."
        )
    return part.astype(np.int64)


def _held(
    values: npt.ArrayLike,
    votes: Int64[np.ndarray, "*elements labels"],
    degrees: Int64[np.ndarray, " n"],
    modality: int,
) -> Int64[np.ndarray, "*elements n labels"]:
    table = np.asarray(values)
    shape = (*votes.shape[:-1], len(degrees), votes.shape[-1])
    if table.shape != shape or not np.issubdtype(table.dtype, np.integer):
        raise ValueError(
            f"Expected `held[{modality}]` to be integers {list(shape)}, but got {table.dtype} {list(table.shape)}."
        )
    if table.min() < 0 or (table > votes[..., None, :]).any() or (table.sum(axis=-1) != degrees).any():
        raise ValueError(
            f"Expected the votes in `held[{modality}]` to be some of `votes`, and as many of each element as its "
            "degree, but they are not."
        )
    return table.astype(np.int64)


def _gathered(
    table: Int64[np.ndarray, "*elements n labels"],
    label: Int64[np.ndarray, "*elements"],
    other: int,
    r: Int64[np.ndarray, " radii"],
) -> Int64[np.ndarray, "*radii_elements"]:
    """Return the most that r elements of a modality can take off the lead of `label` over `other`."""
    for_label = np.take_along_axis(table, label[..., None, None], axis=-1)[..., 0]
    weight = table.sum(axis=-1) + for_label - table[..., other]
    ordered = -np.sort(-weight, axis=-1)
    sums = np.concatenate([np.zeros_like(ordered[..., :1]), np.cumsum(ordered, axis=-1)], axis=-1)
    return np.moveaxis(sums[..., r], -1, 0)
