"""Measure a CLIP on the emoji data and write the figures into its model card.

    python benchmarks/emoji_clip_card.py                      # the shipped model: print the tables
    python benchmarks/emoji_clip_card.py --write              # and put them into its card
    python benchmarks/emoji_clip_card.py --model runs/x/model

Queries are ranked against the whole split; a part's rows are the queries of that part.
"""

import argparse
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from crossguard.data import OneToManyPairs
from crossguard.data.emoji import load_emoji, part_of
from crossguard.evaluate import METRICS, embedding_ranks, recalls
from crossguard.models import load_model
from crossguard.models.clip import CLIP
from crossguard.runs import write_atomically

CARD = Path(str(files("crossguard.models"))) / "assets" / "emoji-clip" / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


@torch.no_grad()
def figures(model: CLIP, pairs: OneToManyPairs) -> Iterator[tuple[str, int, int, dict[str, float]]]:
    """Give (part, images, texts, recalls in percent) for the whole split and for each of its parts."""
    images = model.encode_image(model.preprocess([pairs.image(i) for i in range(len(pairs.images))]))
    texts = model.encode_text(pairs.texts)
    links = torch.from_numpy(pairs.links.copy())
    text_ranks = embedding_ranks(images, texts, links)
    image_ranks = embedding_ranks(texts, images, links.flip(1))
    image_parts = np.array([part_of(picture) for picture in pairs.images])
    text_parts = np.array([image_parts[pairs.images_of(j)[0]] for j in range(len(pairs.texts))])
    for part in ("all", *sorted(set(image_parts))):
        of_images = torch.from_numpy((image_parts == part) | (part == "all"))
        of_texts = torch.from_numpy((text_parts == part) | (part == "all"))
        ranks = {"tr": text_ranks[of_images], "ir": image_ranks[of_texts]}
        yield part, int(of_images.sum()), int(of_texts.sum()), recalls(ranks)


def table(model: CLIP) -> str:
    """Return the figures on val and test as Markdown."""
    lines = ["| split | part | pictures | captions | " + " | ".join(name.upper() for name in METRICS) + " |"]
    lines.append("|---" * (4 + len(METRICS)) + "|")
    for split in ("val", "test"):
        for part, images, texts, values in figures(model, load_emoji(split=split)):
            cells = [split, part, str(images), str(texts), *(f"{values[name]:.1f}" for name in METRICS)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji-clip", help="a shipped name or a folder")
    parser.add_argument("--write", action="store_true", help="put the tables into the shipped model's card")
    options = parser.parse_args()
    text = table(load_model(options.model))
    print(text)
    if options.write:
        before, _, rest = CARD.read_text("utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        write_atomically(CARD, f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
