"""The worst case over all base classifiers there are, by brute force: a linear programme over the sub-samples."""

from itertools import combinations, product

import numpy as np
from scipy import sparse
from scipy.optimize import linprog
from scipy.stats import norm


def before_and_after(n, edits):
    """The elements of each modality, and those after the edits; what is new has an id of its own."""
    before = [set(range(size)) for size in n]
    after = [
        set(range(e.common(size))) | {100 + j for j in range(e.substitutions + e.insertions)}
        for size, e in zip(n, edits, strict=True)
    ]
    return before, after


def sub_samples(elements, k):
    """All sub-samples of k_i elements of every modality."""
    return list(product(*[combinations(sorted(ids), kept) for ids, kept in zip(elements, k, strict=True)]))


def joint_sub_samples(elements, k):
    """All sub-samples of k elements of all modalities together."""
    return list(combinations([(i, element) for i, ids in enumerate(elements) for element in sorted(ids)], k))


def least_lead(before, after, p_a, p_b):
    """Least p'_A - p'_B over all randomised base classifiers with p_A and p_B on the sub-samples before the attack."""
    index = {z: i for i, z in enumerate(dict.fromkeys(before + after))}
    clean, attacked = np.zeros(len(index)), np.zeros(len(index))
    np.add.at(clean, [index[z] for z in before], 1 / len(before))
    np.add.at(attacked, [index[z] for z in after], 1 / len(after))
    return least_lead_of(clean, attacked, p_a, p_b)


def least_lead_of(clean, attacked, p_a, p_b):
    """The same for any finite set of things that the base classifier may be shown, with their chances before and after."""
    size = len(clean)
    objective = np.concatenate([attacked, -attacked])
    equal = np.zeros((2, 2 * size))
    equal[0, :size], equal[1, size:] = clean, clean
    together = sparse.hstack([sparse.identity(size), sparse.identity(size)])
    found = linprog(objective, A_ub=together, b_ub=np.ones(size), A_eq=equal, b_eq=[p_a, p_b], bounds=(0, 1))
    assert found.status == 0
    return found.fun


def blurred(before, after, shift, edges):
    """Chances, before and after, of pairs of a sub-sample and a cell of the line between two of `edges`.

    Moving a modality in a space of any dimension is moving it along one line: noise across it tells nothing.
    """
    index = {z: i for i, z in enumerate(dict.fromkeys(before + after))}
    chances = []
    for given, moved in ((before, 0.0), (after, shift)):
        shares = np.zeros(len(index))
        np.add.at(shares, [index[z] for z in given], 1 / len(given))
        chances.append(np.outer(shares, np.diff(norm.cdf(np.array([-np.inf, *edges, np.inf]) - moved))).ravel())
    return chances
