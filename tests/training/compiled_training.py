"""Train with and without `compile`, and compare; run by `test_options`."""

import sys
from pathlib import Path

import numpy as np
import torch
from training_helpers import ToySource

import crossguard as cg
from crossguard.data import OneToManyPairs, Picture
from crossguard.training import train
from shared import COLOURS, SHAPES, draw, make_clip


def main(folder: Path) -> None:
    pictures, texts = [], []
    for colour in COLOURS:
        for shape in SHAPES:
            path = folder / f"{colour}-{shape}.png"
            draw(colour, shape, "left").save(path)
            pictures.append(Picture(path.stem, path))
            texts.append(f"a small picture of a {colour} {shape}")
    links = np.stack([np.arange(len(texts))] * 2, axis=1)
    pairs = OneToManyPairs("toy", "train", tuple(pictures), tuple(texts), links)
    threat = cg.ThreatModel(image=cg.LInf(eps=8 / 255), text=cg.WordEdits(words=1))
    options = {"defence": "mat", "threat": threat, "steps": 2, "batch_size": 8, "source": ToySource()}
    plain, compiled = (train(make_clip(), pairs, compile=c, **options) for c in (False, True))
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)
    assert "encode_image" not in vars(compiled)
    moved = max(
        float((a - b).detach().abs().max()) for a, b in zip(plain.parameters(), make_clip().parameters(), strict=True)
    )
    assert moved > 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
