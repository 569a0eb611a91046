"""The models and data of the golden rows: tiny, and the same wherever they are built."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from crossguard.data import LabelledImages, MultiModalSamples, OneToManyPairs, Picture
from crossguard.data.emoji import load_emoji
from crossguard.models import load_model
from fusion_models import make_albef, make_captioner
from grounding_models import make_expressions, make_grounder
from shared import SHAPES, draw, fit_clip

DRAWN = (("red", "disc", "left"), ("red", "disc", "right"), ("blue", "square", "left"), ("green", "cross", "right"))


class Sensors(torch.nn.Module):
    """Three labels of two series of eight numbers each; what is not kept counts as zero."""

    name, modalities, classes = "sensors", ("left", "right"), ("a", "b", "c")

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(torch.randn(2, 8, 3, generator=generator))

    def forward(self, inputs, kept=None):
        if kept is not None:
            inputs = {m: inputs[m] * kept[m][..., None] for m in self.modalities}
        left, right = (inputs[m].flatten(1) for m in self.modalities)
        return (left @ self.weight[0]).tanh() + (right @ self.weight[1]).sin()


class Scenes(torch.nn.Module):
    """Two labels a pixel, of colour and depth around it; what is not kept counts as grey and as 20 metres."""

    name, modalities, classes = "scenes", ("rgb", "depth"), ("other", "road")

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = torch.nn.Parameter(torch.randn(2, 4, 1, 3, generator=generator))

    def forward(self, inputs, kept=None):
        both = [inputs["rgb"] - 0.5, inputs["depth"] / 40 - 0.5]
        if kept is not None:
            both = [part * kept[m][:, None] for part, m in zip(both, self.modalities, strict=True)]
        return torch.nn.functional.conv2d(torch.cat(both, dim=1), self.weight, padding=(0, 1))


@torch.no_grad()
def _answers(model, values):
    return model({m: torch.from_numpy(given) for m, given in values.items()}).argmax(dim=1).numpy()


@dataclass
class Golden:
    """Everything that the cases need; built when it is first asked for.

    Args:
        folder: where files go; empty at first.
    """

    folder: Path

    @cached_property
    def clip(self):
        return fit_clip(self.pairs)

    @cached_property
    def albef(self):
        return make_albef(self.folder / "albef")

    @cached_property
    def pairs(self):
        """Four pictures and seven texts; the two red discs share one."""
        pictures, texts, links = [], [], []
        for colour, shape, place in DRAWN:
            path = self.folder / f"{colour}-{shape}-{place}.png"
            draw(colour, shape, place).save(path)
            pictures.append(Picture(path.stem, path))
            for text in (f"a small picture of a {colour} {shape}", f"a bright {colour} {shape} on the {place} side"):
                if text not in texts:
                    texts.append(text)
                links.append((len(pictures) - 1, texts.index(text)))
        return OneToManyPairs("drawn", "test", tuple(pictures), tuple(texts), np.array(links))

    @cached_property
    def images(self):
        """The same pictures by their shape."""
        labels = np.array([SHAPES.index(shape) for _, shape, _ in DRAWN])
        return LabelledImages("drawn", "test", self.pairs.images, labels, SHAPES, ("a picture of a {c}",))

    @cached_property
    def emoji_clip(self):
        return load_model("emoji-clip")

    @cached_property
    def emoji(self):
        return load_emoji(split="test").spread(6)

    @cached_property
    def grounder(self):
        return make_grounder(self.folder / "grounder")

    @cached_property
    def expressions(self):
        return make_expressions(self.folder / "expressions")

    @cached_property
    def captioner(self):
        return make_captioner(self.folder / "captioner")

    @cached_property
    def sensor_net(self):
        return Sensors()

    @cached_property
    def sensors(self):
        generator = np.random.default_rng(0)
        values = {m: (generator.integers(-128, 129, (6, 4, 2)) / 64).astype(np.float32) for m in ("left", "right")}
        labels = _answers(self.sensor_net, values)
        labels[2], labels[3] = (labels[2] + 1) % 3, -1  # one wrong answer, one without a label
        return MultiModalSamples("toy", "test", values, labels, ("a", "b", "c"), np.arange(6) // 2)

    @cached_property
    def scene_net(self):
        return Scenes()

    @cached_property
    def scenes(self):
        generator = np.random.default_rng(3)
        values = {
            "rgb": (generator.integers(0, 256, (3, 3, 4, 6)) / 255).astype(np.float32),
            "depth": (generator.integers(0, 40000, (3, 1, 4, 6)) / 1000).astype(np.float32),
        }
        labels = np.where(
            generator.integers(0, 5, (3, 4, 6)) > 0,
            _answers(self.scene_net, values),
            generator.integers(-1, 2, (3, 4, 6)),
        )
        return MultiModalSamples("scenes", "test", values, labels, ("other", "road"), np.arange(3))
