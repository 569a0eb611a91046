"""Encoded texts of a whole data set for a fusion model, without padding, so that COCO's captions fit into memory."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.models import FusionModel, States


class TextBank:
    """The states of many texts, one after another, padded only when some are asked for.

    25,000 captions of 13 tokens and 768 channels take 1 GB in float32; padded to the longest they would take five.

    Args:
        model: the fusion model, in evaluation mode.
        texts: the texts, each encoded once.
        batch_size: texts at a time.
    """

    @torch.no_grad()
    def __init__(self, model: FusionModel, texts: Sequence[str], *, batch_size: int) -> None:
        tokens = model.tokenize(texts)
        lengths = tokens.mask.sum(dim=1)
        order = lengths.argsort(stable=True)
        hidden, embeddings = [], []
        for rows in order.split(batch_size):
            states = model.encode_text_states([texts[int(row)] for row in rows])
            hidden.append(states.hidden[states.mask])
            embeddings.append(states.embedding)
        device = hidden[0].device
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        counts = lengths[order]
        self._hidden: Float[Tensor, "tokens width"] = torch.cat(hidden)
        self._embeddings: Float[Tensor, "texts dim"] = torch.cat(embeddings)[rank.to(device)]
        self.lengths: Int64[Tensor, " texts"] = lengths.to(device)
        self._starts: Int64[Tensor, " texts"] = (counts.cumsum(0) - counts)[rank].to(device)
        if int(lengths.sum()) != len(self._hidden):
            raise ValueError(
                f"Expected a state per token of a text ({int(lengths.sum())}), but `encode_text_states` gave masks of "
                f"{len(self._hidden)}."
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, rows: Int64[Tensor, " chosen"]) -> States:
        """Return the states of the chosen texts, padded to the longest of them."""
        rows = rows.to(self.lengths.device)
        lengths = self.lengths[rows]
        places = torch.arange(int(lengths.max()), device=rows.device)
        mask = places < lengths[:, None]
        where = (self._starts[rows, None] + places).clamp(max=len(self._hidden) - 1)
        hidden = self._hidden[where] * mask[..., None]  # padding is zero, whatever stands behind a text
        return States(hidden, mask, self._embeddings[rows])
