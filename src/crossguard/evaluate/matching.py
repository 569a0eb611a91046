"""The second stage of retrieval with a fusion model: match scores of many pairs, streamed image block by block."""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from crossguard.evaluate.text_bank import TextBank
from crossguard.models import FusionModel, States
from crossguard.progress import Reporter
from crossguard.runs import write_atomically
from crossguard.world import ALONE, World

ReadPixels = Callable[[Int64[np.ndarray, " images"]], Float[Tensor, "images 3 height width"]]
"""Gives the pixels of some images of a data set, by index, on the CPU."""

_PAIRS_PER_FORWARD = {"cpu": 128}
_ON_ACCELERATORS = 1024


def union(*sides: Int64[np.ndarray, "_ 2"]) -> Int64[np.ndarray, "pairs 2"]:
    """Return every (image, text) of the given lists once, by image, then by text."""
    pairs = np.concatenate(sides)
    texts = int(pairs[:, 1].max()) + 1
    different = np.unique(pairs[:, 0] * texts + pairs[:, 1])
    return np.stack([different // texts, different % texts], axis=1)


def look_up(
    asked: Int64[np.ndarray, "asked 2"], pairs: Int64[np.ndarray, "pairs 2"], scores: Float32[np.ndarray, " pairs"]
) -> Float32[np.ndarray, " asked"]:
    """Return the scores of pairs that all stand in `pairs`, which is in the order of `union`."""
    texts = int(pairs[:, 1].max()) + 1
    places = np.searchsorted(pairs[:, 0] * texts + pairs[:, 1], asked[:, 0] * texts + asked[:, 1])
    found: Float32[np.ndarray, " asked"] = scores[places]
    return found


def match_scores(
    model: FusionModel,
    pairs: Int64[np.ndarray, "pairs 2"],
    *,
    read_pixels: ReadPixels,
    texts: Sequence[str],
    batch_size: int,
    device: torch.device,
    progress: Reporter,
    title: str,
    folder: Path | None = None,
    world: World = ALONE,
) -> Float32[np.ndarray, " pairs"]:
    """Return the logit of "match" of every pair.

    Every text is encoded once and kept; images are encoded `batch_size` at a time, each once, and forgotten when
    their pairs are scored. With a folder, finished blocks of images are kept there and not scored again.

    Args:
        model: in evaluation mode.
        pairs: (image, text), in the order of `union`.
        read_pixels: gives the images.
        texts: the texts; equal ones should be one.
        batch_size: images at a time.
        device: where the model is.
        progress: counts pairs.
        title: what is scored, in words.
        folder: where scores are kept; it belongs to one model, data set and attack.
        world: the processes that share the images.

    Raises:
        ValueError: the model gives other than two finite logits per pair.
    """
    scores = np.empty(len(pairs), dtype=np.float32)
    bank: TextBank | None = None
    mine: list[tuple[int, Float32[np.ndarray, " some"]]] = []
    with progress.task(title, total=len(pairs)) as task:
        dealt = world.deal(_blocks(pairs, batch_size), passed=lambda block: task.advance(block[2] - block[1]))
        for images, start, stop in dealt:
            block = pairs[start:stop]
            kept = None if folder is None else folder / f"images-{images[0]:07d}.scores"
            known = None if kept is None else _read(kept, block)
            if known is None:
                used = np.unique(pairs[:, 1])
                bank = bank or TextBank(model, [texts[j] for j in used], batch_size=4 * batch_size)
                with torch.no_grad():
                    states = model.encode_image_states(read_pixels(images).to(device))
                local = np.stack([np.searchsorted(images, block[:, 0]), np.searchsorted(used, block[:, 1])], axis=1)
                known = _match(model, states, bank, torch.from_numpy(local).to(device))
                if kept is not None:
                    _write(kept, block, known)
            scores[start:stop] = known
            mine.append((start, known))
            task.advance(stop - start)
    for start, known in (part for parts in world.every(mine) for part in parts):
        scores[start : start + len(known)] = known
    return scores


@torch.no_grad()
def _match(
    model: FusionModel, images: States, bank: TextBank, pairs: Int64[Tensor, "pairs 2"]
) -> Float32[np.ndarray, " pairs"]:
    """Score pairs image by image, short texts first, so that little is spent on padding or on keys twice."""
    size = _PAIRS_PER_FORWARD.get(pairs.device.type, _ON_ACCELERATORS)
    lengths = bank.lengths[pairs[:, 1]]
    order = (pairs[:, 0] * (int(bank.lengths.max()) + 1) + lengths).argsort(stable=True)
    found = torch.empty(len(pairs), device=pairs.device)
    for rows in order.split(size):
        texts, places = pairs[rows, 1].unique(return_inverse=True)
        logits = model.match(images, bank.select(texts), torch.stack([pairs[rows, 0], places], dim=1))
        if logits.shape != (len(rows), 2) or not bool(logits.isfinite().all()):
            raise ValueError(
                f"Expected `match` to give finite logits [{len(rows)}, 2], but got {list(logits.shape)}"
                f"{'' if bool(logits.isfinite().all()) else ', not all finite'}."
            )
        found[rows] = logits[:, 1].float()
    return found.cpu().numpy()


def _blocks(
    pairs: Int64[np.ndarray, "pairs 2"], batch_size: int
) -> Iterator[tuple[Int64[np.ndarray, " images"], int, int]]:
    """Give the images of every block and where its pairs begin and end."""
    images, first = np.unique(pairs[:, 0], return_index=True)
    bounds = [*first.tolist(), len(pairs)]
    for start in range(0, len(images), batch_size):
        stop = min(start + batch_size, len(images))
        yield images[start:stop], bounds[start], bounds[stop]


def _digest(block: Int64[np.ndarray, "pairs 2"]) -> bytes:
    return blake2b(np.ascontiguousarray(block).tobytes(), digest_size=32).digest()


def _write(path: Path, block: Int64[np.ndarray, "pairs 2"], scores: Float32[np.ndarray, " pairs"]) -> None:
    write_atomically(path, _digest(block) + scores.astype("<f4").tobytes())


def _read(path: Path, block: Int64[np.ndarray, "pairs 2"]) -> Float32[np.ndarray, " pairs"] | None:
    """Return the scores of these very pairs, or None."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head = _digest(block)
    if not content.startswith(head) or len(content) != len(head) + 4 * len(block):
        return None
    return np.frombuffer(content, dtype="<f4", offset=len(head)).astype(np.float32)
