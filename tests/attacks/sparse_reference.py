"""Greedy placement written plainly: one sample, one element and one content at a time."""

import torch


def greedy(loss, clean, *, budgets):
    """Return what greedy placement finds without climbing; `loss` takes a dict of [1, elements, features] parts."""
    states, scores = [{name: values.clone() for name, values in clean.items()}], []
    chosen = {name: set() for name in budgets}
    for _ in range(sum(budgets.values())):
        current = states[-1]
        leaves = {name: values.clone().requires_grad_(True) for name, values in current.items()}
        gradients = dict(
            zip(leaves, torch.autograd.grad(loss(leaves), list(leaves.values()), allow_unused=True), strict=True)
        )
        best = (-float("inf"), None)
        for name, budget in budgets.items():
            if len(chosen[name]) == budget:
                continue
            for element in range(clean[name].shape[1]):
                if element in chosen[name]:
                    continue
                for content in ("along", 0.0, 1.0):
                    trial = {other: values.clone() for other, values in current.items()}
                    for feature in range(clean[name].shape[2]):
                        if content == "along":
                            slope = float(gradients[name][0, element, feature])
                            if slope != 0:
                                trial[name][0, element, feature] = 1.0 if slope > 0 else 0.0
                        else:
                            trial[name][0, element, feature] = content
                    with torch.no_grad():
                        score = float(loss(trial))
                    if score > best[0]:
                        best = (score, (trial, name, element))
        trial, name, element = best[1]
        chosen[name].add(element)
        states.append(trial)
    with torch.no_grad():
        scores = [float(loss(state)) for state in states]
    return states[max(range(len(states)), key=scores.__getitem__)]
