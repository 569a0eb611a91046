"""What the benchmarks of base models share: the options of training, and answers to whole and to ablated inputs."""

import argparse
from collections.abc import Mapping

import numpy as np
import torch

from crossguard.data import MultiModalSamples
from crossguard.training.ablated_loop import random_masks


def training_options(doc: str | None, *, steps: int, batch_size: int, lr: float) -> argparse.ArgumentParser:
    """Return a parser with the options of every training on ablated inputs."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--seed", type=int, default=0)
    return parser


@torch.no_grad()
def answers(
    model, samples: MultiModalSamples, keep: Mapping[str, int] | None, *, draws: int = 1, batch_size: int = 16
) -> list[np.ndarray]:
    """Return the answers [samples, ...] to whole inputs (`keep` None), or to `draws` sub-samples of each."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(draws if keep else 1):
        parts = []
        for start in range(0, len(samples), batch_size):
            inputs = {m: torch.from_numpy(samples.modalities[m][start : start + batch_size]) for m in model.modalities}
            places = {m: values.shape[2:] if values.ndim == 4 else values.shape[1:2] for m, values in inputs.items()}
            kept = keep and {
                m: random_masks(len(inputs[m]), int(np.prod(places[m])), k, generator=generator).reshape(-1, *places[m])
                for m, k in keep.items()
            }
            parts.append(model(inputs, kept).argmax(dim=1).numpy())
        found.append(np.concatenate(parts))
    return found


def vote(drawn: list[np.ndarray], labels: int) -> np.ndarray:
    """Return the label with the most answers, the lowest among equals."""
    return np.stack([sum(answer == label for answer in drawn) for label in range(labels)]).argmax(axis=0)
