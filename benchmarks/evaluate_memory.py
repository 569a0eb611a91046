"""The peak of memory and the time of a clean evaluation of many pictures and captions, with a model that takes none.

    python benchmarks/evaluate_memory.py [--images 20000] [--captions 5] [--dim 512] [--run FOLDER]

One small picture stands for all of them, since files play no part in memory; captions all differ. The model has no
network to speak of, but embeddings of a usual size. The evaluation runs in a process of its own, whose largest resident
memory is printed beside what was there before it began (Python, PyTorch, the captions).
"""

import os

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}

import argparse
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

import crossguard as cg
from crossguard.data import OneToManyPairs, Picture
from crossguard.models import PixelRule, TwoTowers
from crossguard.progress import Silent
from host_time import EDGE, build_tokenizer


class Words(nn.Module):
    """The mean of a text's word vectors."""

    def __init__(self, words: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(words, dim)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (self.table(ids) * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def peak() -> float:
    """The largest resident memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--captions", type=int, default=5, help="of each picture")
    parser.add_argument("--dim", type=int, default=512, help="of the embeddings")
    parser.add_argument("--run", type=Path, help="keep the run there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    texts = options.images * options.captions
    words = [f"word{number}" for number in range(400)]
    captions = tuple(" ".join(words[(j // 400**k) % 400] for k in range(3)) for j in range(texts))
    links = np.stack([np.arange(texts) // options.captions, np.arange(texts)], axis=1)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "one.png"
        Image.new("RGB", (EDGE, EDGE), "navy").save(file)
        pictures = tuple(Picture(str(number), file) for number in range(options.images))
        pairs = OneToManyPairs("drawn", "test", pictures, captions, links)
        vocabulary = OneToManyPairs("words", "test", pictures[:1], (" ".join(words),), np.zeros((1, 2), np.int64))
        tokenizer = build_tokenizer(vocabulary)
        torch.manual_seed(0)
        model = TwoTowers(
            nn.Sequential(nn.Flatten(), nn.Linear(3 * EDGE * EDGE, options.dim)),
            Words(len(tokenizer), options.dim),
            tokenizer=tokenizer,
            pixel_rule=PixelRule((EDGE, EDGE), tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD)),
            context_length=16,
            name="thin",
        ).eval()
        before, begun = peak(), time.process_time()
        result = cg.evaluate(model, pairs, task="retrieval", run=options.run, progress=Silent())
        spent = time.process_time() - begun
    rows = sum(len(outcome.rows) for outcome in result)
    print(f"{options.images:,} pictures, {texts:,} captions, {options.dim} dimensions: {rows:,} rows")
    print(f"peak {peak():.2f} GB ({before:.2f} GB before), {spent:.0f} s of one core")


if __name__ == "__main__":
    main()
