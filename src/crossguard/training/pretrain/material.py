"""What is learnt from: pictures as one tensor, teacher features of many views, tokenised texts, links."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Int64, UInt8
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from crossguard.data import OneToManyPairs
from crossguard.progress import Reporter
from crossguard.runs import write_atomically
from crossguard.training.pretrain.teacher import image_features, load_image_teacher
from crossguard.training.pretrain.views import strong_views

_CHUNK = 128


def load_pictures(pairs: OneToManyPairs) -> UInt8[Tensor, "images 3 height width"]:
    """Decode all pictures, which are of one size, into one tensor."""
    stack = np.stack([np.asarray(picture.load()) for picture in pairs.images])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class View:
    """Every picture once, in one random form, with the teacher's features of that form."""

    pixels: UInt8[Tensor, "images 3 height width"]
    features: Float16[Tensor, "images features"]


def load_views(pictures: Tensor, folder: Path, *, rounds: int, seed: int, progress: Reporter) -> list[View]:
    """Return the plain pictures and `rounds` strong views of them; made once and kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"views-{seed}-{number}.safetensors" for number in range(rounds + 1)]
    missing = [number for number, file in enumerate(files) if not file.is_file()]
    with progress.task("Teacher looks at views", total=len(missing) * len(pictures)) as task:
        weights = load_image_teacher() if missing else {}
        for number in missing:
            generator = torch.Generator().manual_seed(1000 * seed + number)
            pixels, features = [], []
            for chunk in pictures.split(_CHUNK):
                view = chunk.float() / 255
                if number > 0:
                    view = ((strong_views(view, generator) * 255).round()) / 255
                pixels.append((view * 255).round().byte())
                features.append(image_features(view, weights).half())
                task.advance(len(chunk))
            view_bytes = save({"pixels": torch.cat(pixels), "features": torch.cat(features)})
            write_atomically(files[number], view_bytes)
    return [View(**load_file(file)) for file in files]


@dataclass(frozen=True)
class Texts:
    """The tokenised texts of a data set, and which texts each picture has.

    Args:
        ids: int64 [texts, length].
        mask: int64 [texts, length], 0 on padding.
        captions: per picture, the indices of its captions.
        others: per picture, the indices of its names and aliases.
    """

    ids: Int64[Tensor, "texts length"]
    mask: Int64[Tensor, "texts length"]
    captions: Sequence[Int64[np.ndarray, "..."]]
    others: Sequence[Int64[np.ndarray, "..."]]

    @classmethod
    def of(cls, pairs: OneToManyPairs, tokenizer: PreTrainedTokenizerBase) -> "Texts":
        """Tokenise all texts of `pairs`."""
        encoded = tokenizer(list(pairs.texts), padding=True, truncation=True, return_tensors="pt")
        is_caption = np.array([kind == "caption" for kind in pairs.text_kinds])
        linked = [pairs.texts_of(image) for image in range(len(pairs.images))]
        return cls(
            encoded["input_ids"],
            encoded["attention_mask"],
            [texts[is_caption[texts]] for texts in linked],
            [texts[~is_caption[texts]] for texts in linked],
        )


def positives(
    pairs: OneToManyPairs, images: Int64[np.ndarray, " images"], texts: Int64[np.ndarray, " texts"]
) -> Bool[Tensor, "images texts"]:
    """Return which of the chosen images and texts are true pairs."""
    rows = [np.isin(texts, pairs.texts_of(int(image))) for image in images]
    return torch.from_numpy(np.stack(rows))


def look_alikes(features: Float[Tensor, "images dim"], *, count: int) -> Int64[Tensor, "images count"]:
    """Return the `count` nearest other pictures of every picture by cosine."""
    unit = torch.nn.functional.normalize(features, dim=1)
    nearest = [(chunk @ unit.T).topk(count + 1, dim=1).indices[:, 1:] for chunk in unit.split(512)]
    return torch.cat(nearest)
