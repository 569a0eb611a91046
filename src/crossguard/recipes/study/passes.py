"""How many passes through a model's encoders something takes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from crossguard.models import VisionLanguageModel

_ENCODERS: dict[str, Literal["images", "texts"]] = {
    "encode_image": "images",
    "encode_image_states": "images",
    "encode_text": "texts",
    "encode_text_states": "texts",
}


@dataclass
class Passes:
    """Images and texts that a model encoded; with a gradient to follow, the way back is one more pass."""

    images: int = 0
    texts: int = 0


@contextmanager
def count_passes(model: VisionLanguageModel) -> Iterator[Passes]:
    """Count what goes through a model's encoders meanwhile.

    Example:
        >>> from crossguard.models import load_model
        >>> model = load_model("emoji-clip")
        >>> with count_passes(model) as passes:
        ...     _ = model.encode_text(["fox", "cat"])  # weights ask for gradients: there and back
        >>> passes
        Passes(images=0, texts=4)
    """
    passes, inside = Passes(), [False]

    def counting(encode: Callable[..., Any], kind: Literal["images", "texts"]) -> Callable[..., Any]:
        def encoded(*args: Any, **options: Any) -> Any:
            if inside[0]:  # one encoder may use another
                return encode(*args, **options)
            inside[0] = True
            try:
                found = encode(*args, **options)
            finally:
                inside[0] = False
            embedding: Tensor = getattr(found, "embedding", found)
            count = len(embedding) * (2 if embedding.requires_grad else 1)
            setattr(passes, kind, getattr(passes, kind) + count)
            return found

        return encoded

    present = {name: kind for name, kind in _ENCODERS.items() if hasattr(model, name)}
    for name, kind in present.items():
        setattr(model, name, counting(getattr(model, name), kind))
    try:
        yield passes
    finally:
        for name in present:
            delattr(model, name)
