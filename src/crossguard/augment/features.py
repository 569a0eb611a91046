"""Unit embeddings of pictures and texts under the reference model, and fingerprints of models and pairs."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import Module
from torch.nn.functional import normalize

from crossguard.attacks import frozen
from crossguard.attacks.encode import encode_unit_texts
from crossguard.checks import WrongKind
from crossguard.data import OneToManyPairs, Picture
from crossguard.models import VisionLanguageModel
from crossguard.progress import Reporter
from crossguard.world import ALONE, World


@torch.no_grad()
def embed_pictures(
    model: VisionLanguageModel,
    pictures: Sequence[Picture],
    *,
    batch_size: int,
    progress: Reporter,
    world: World = ALONE,
) -> Float[np.ndarray, "pictures dim"]:
    """Return unit embeddings of at least one picture, computed where the model is."""
    with frozen(model), progress.task("Embed pictures", total=-(-len(pictures) // world.size)) as task:

        def embed(at: int) -> Float[np.ndarray, "some dim"]:
            pixels = model.preprocess([picture.load() for picture in pictures[at : at + batch_size]])
            task.advance(len(pixels))
            found = normalize(model.encode_image(pixels.to(_device(model))).float(), dim=-1).cpu().numpy()
            return np.asarray(found)

        return np.concatenate(list(world.each(range(0, len(pictures), batch_size), embed)))


def embed_texts(
    model: VisionLanguageModel, texts: Sequence[str], *, chunk: int = 4096, progress: Reporter, world: World = ALONE
) -> Float[np.ndarray, "texts dim"]:
    """Return unit embeddings of at least one text, `chunk` texts tokenised at once."""
    with frozen(model), progress.task("Embed texts", total=-(-len(texts) // world.size)) as task:

        def embed(at: int) -> Float[np.ndarray, "some dim"]:
            found = np.asarray(encode_unit_texts(model, texts[at : at + chunk]).cpu().numpy())
            task.advance(len(found))
            return found

        return np.concatenate(list(world.each(range(0, len(texts), chunk), embed)))


def model_fingerprint(model: VisionLanguageModel) -> str:
    """Return hexadecimal digits that change with any weight."""
    digest = blake2b(digest_size=16)
    for name, value in sorted(module_of(model).state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pairs_fingerprint(pairs: OneToManyPairs) -> str:
    """Return hexadecimal digits that change with any key, size of an image file, text or link.

    Raises:
        ValueError: image files are missing (counted and named).
    """
    missing = [str(picture.path) for picture in pairs.images if not picture.path.is_file()]
    if missing:
        named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(f"Expected {len(pairs.images)} image files, but {len(missing)} are missing: {named}")
    digest = blake2b(digest_size=16)
    for picture in pairs.images:
        size = picture.path.stat().st_size if picture.size is None else picture.size
        digest.update(f"{picture.key!r} {size};".encode())
    for text in pairs.texts:
        digest.update(f"{text!r};".encode())
    digest.update(pairs.links.tobytes())
    return digest.hexdigest()


def module_of(model: VisionLanguageModel) -> Module:
    """Return a reference model as a module.

    Raises:
        WrongKind: it is no module, or has no towers for images and texts.
    """
    if not isinstance(model, Module):
        raise WrongKind(f"Expected the reference model to be a torch.nn.Module, but got {type(model).__name__}.")
    lacking = [member for member in ("preprocess", "encode_image", "encode_text") if not hasattr(model, member)]
    if lacking:
        raise WrongKind(
            f"Expected a VisionLanguageModel as reference (see crossguard.models), but {type(model).__name__} lacks: "
            f"{', '.join(lacking)}."
        )
    return model


def _device(model: VisionLanguageModel) -> torch.device:
    return next((p.device for p in module_of(model).parameters()), torch.device("cpu"))
