"""The sizes of an ALBEF."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from crossguard.checks import lookup


@dataclass(frozen=True)
class AlbefConfig:
    """The sizes of an ALBEF (Li et al., 2021, section 3.1); the defaults are the released model's.

    Args:
        image_size: edge of the square pictures, in pixels.
        patch_size: edge of a patch, in pixels.
        vision_width, vision_layers, vision_heads, vision_mlp: of the ViT.
        vocab_size, positions, token_types: of BERT's embeddings.
        text_width, text_layers, text_heads, text_mlp: of BERT, its fusion layers included.
        fusion_start: the first of BERT's layers that looks at the image; those before it read the text alone.
        embed_dim: of the common space.
        context_length: the most tokens of a text, `[CLS]` included.
        max_words: the most words of a caption.
        dropout: in BERT, while training.

    Raises:
        ValueError: a size below 1, a width that its heads do not divide, no text or no fusion layer.
    """

    image_size: int = 384
    patch_size: int = 16
    vision_width: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    vision_mlp: int = 3072
    vocab_size: int = 30522
    positions: int = 512
    token_types: int = 2
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    text_mlp: int = 3072
    fusion_start: int = 6
    embed_dim: int = 256
    context_length: int = 30
    max_words: int = 30
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "dropout" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"Expected `{field.name}` to be a whole number >= 1, but got {value!r}.")
        for tower in ("vision", "text"):
            width, heads = getattr(self, f"{tower}_width"), getattr(self, f"{tower}_heads")
            if width % heads:
                raise ValueError(f"Expected `{tower}_heads` to divide {width}, but got {heads}.")
        if self.image_size % self.patch_size:
            raise ValueError(f"Expected `patch_size` to divide {self.image_size}, but got {self.patch_size}.")
        if not self.fusion_start < self.text_layers:
            raise ValueError(f"Expected `fusion_start` in [1, {self.text_layers}), but got {self.fusion_start}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"Expected `dropout` in [0, 1), but got {self.dropout!r}.")

    @property
    def grid(self) -> int:
        """Patches along an edge."""
        return self.image_size // self.patch_size

    def to_dict(self) -> dict[str, Any]:
        """Return what `config.json` holds."""
        return {"model_type": "albef", **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AlbefConfig":
        """Read what `to_dict` gave.

        Raises:
            ValueError: an unknown key or a value out of range.
        """
        given = {key: value for key, value in values.items() if key != "model_type"}
        known = {field.name: field for field in fields(cls)}
        for key in given:
            lookup(known, key, what="key of ALBEF's config.json")
        return cls(**given)
