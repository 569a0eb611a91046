"""The worst case over all base classifiers there are, by brute force: a linear programme over the sub-samples."""

from itertools import combinations, product

import numpy as np
from scipy.optimize import linprog


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
    size = len(index)
    objective, equal = np.zeros(2 * size), np.zeros((2, 2 * size))
    for z in after:
        objective[index[z]] += 1 / len(after)
        objective[size + index[z]] -= 1 / len(after)
    for z in before:
        equal[0, index[z]] += 1 / len(before)
        equal[1, size + index[z]] += 1 / len(before)
    together = np.hstack([np.eye(size), np.eye(size)])
    found = linprog(objective, A_ub=together, b_ub=np.ones(size), A_eq=equal, b_eq=[p_a, p_b], bounds=(0, 1))
    assert found.status == 0
    return found.fun
