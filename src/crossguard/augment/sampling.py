"""Sampling from a language model with randomness that belongs to each sample, so that batches do not matter."""

import copy
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from crossguard.attacks.noise import uniform


class OwnChance(LogitsProcessor):
    """Turns greedy decoding into sampling: the largest of log-probability plus Gumbel noise is an exact draw.

    (The Gumbel-max trick: argmax_l (log p_l + g_l) has distribution p.) The noise is a hash of (seed, sample, step), so
    a sample's text does not depend on what else is in its batch, and no global generator is used.

    Args:
        ids: int64 [rows], what the rows' randomness belongs to.
        seed: the augmentation's seed.
        temperature: divides the logits, above 0.
        top_p: only the likeliest tokens that together reach this probability can be drawn (nucleus).
    """

    def __init__(self, ids: Int64[Tensor, " rows"], *, seed: int, temperature: float | int, top_p: float | int) -> None:
        self.ids, self.seed, self.temperature, self.top_p = ids, seed, temperature, top_p
        self._start: int | None = None

    def __call__(
        self, input_ids: Int64[Tensor, "rows length"], scores: Float[Tensor, "rows tokens"]
    ) -> Float[Tensor, "rows tokens"]:
        """Return log-probabilities plus noise, minus infinity outside the nucleus."""
        if self._start is None:
            self._start = input_ids.shape[1]
        step = input_ids.shape[1] - self._start
        logs = nucleus(scores.float() / self.temperature, self.top_p)
        chance = uniform(self.ids, (scores.shape[1],), seed=self.seed, stream=step, device=scores.device)
        return logs - torch.log(-torch.log(chance.clamp(min=2**-25)))


def nucleus(logits: Float[Tensor, "rows tokens"], top_p: float | int) -> Float[Tensor, "rows tokens"]:
    """Return log-probabilities with everything outside the nucleus at minus infinity (Holtzman et al., ICLR 2020).

    The nucleus is the smallest set of likeliest tokens whose probability reaches `top_p`; it is never empty.
    """
    logs = logits.log_softmax(dim=-1)
    if top_p >= 1:
        return logs
    sorted_logs, order = logs.sort(dim=-1, descending=True, stable=True)
    before = sorted_logs.exp().cumsum(dim=-1) - sorted_logs.exp()
    outside = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
    return logs.masked_fill(outside, -torch.inf)


def generation_options(network: Any, chance: OwnChance, *, max_new_tokens: int) -> dict[str, Any]:
    """Return what `generate` needs to decode with `chance` alone, whatever the model's own defaults are."""
    own: GenerationConfig = network.generation_config
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        bos_token_id=own.bos_token_id,
        eos_token_id=copy.copy(own.eos_token_id),
        pad_token_id=own.pad_token_id,
    )
    return {"generation_config": config, "logits_processor": LogitsProcessorList([chance])}


def check_sampling(*, temperature: float | int, top_p: float | int, max_new_tokens: int) -> None:
    """Refuse settings that cannot be sampled with.

    Raises:
        ValueError: saying what came.
    """
    if not temperature > 0:
        raise ValueError(f"Expected `temperature` > 0, but got {temperature}.")
    if not 0 < top_p <= 1:
        raise ValueError(f"Expected `top_p` in (0, 1], but got {top_p}.")
    if max_new_tokens < 1:
        raise ValueError(f"Expected `max_new_tokens` >= 1, but got {max_new_tokens}.")
