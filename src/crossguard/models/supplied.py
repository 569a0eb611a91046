"""What the caller of `load_model` supplies for what a checkpoint's files lack: tokenizer, pixel rule, other tower."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from crossguard.checks import visible
from crossguard.models.hub import local_folder
from crossguard.models.pixels import PixelRule
from crossguard.models.tokenizers import clip_tokenizer, has_tokenizer, load_tokenizer


@dataclass(frozen=True)
class Supplied:
    """Parts of a model that come from elsewhere than its checkpoint.

    Args:
        base: a loaded model that has what the checkpoint lacks; only what is missing is taken.
        tokenizer: in the place of the checkpoint's: a tokenizer, a folder or hub id, or "clip" for OpenAI's.
        preprocessing: in the place of the checkpoint's: a `PixelRule`, a folder, a hub id, or "clip" for OpenAI's at
            the checkpoint's size.
        offline: look only at local files.
    """

    base: Any = None
    tokenizer: PreTrainedTokenizerBase | Path | str | None = None
    preprocessing: PixelRule | Path | str | None = None
    offline: bool = False

    def __bool__(self) -> bool:
        return any(part is not None for part in (self.base, self.tokenizer, self.preprocessing))

    def tokenizer_for(self, folder: Path, *, clips: bool = False, **options: Any) -> PreTrainedTokenizerBase:
        """Return the tokenizer: the caller's, else the folder's, else the base's, else CLIP's where `clips` says so.

        Raises:
            ValueError: there is none of them.
        """
        if isinstance(self.tokenizer, PreTrainedTokenizerBase):
            return self.tokenizer
        if self.tokenizer == "clip":
            return clip_tokenizer()
        if self.tokenizer is not None:
            return load_tokenizer(local_folder(self.tokenizer, offline=self.offline), offline=True)
        if not has_tokenizer(folder):
            if self.base is not None:
                base: PreTrainedTokenizerBase = self.base.tokenizer
                return base
            if clips:
                return clip_tokenizer()
        return load_tokenizer(folder, offline=True, **options)

    def pixel_rule_for(self, folder: Path, *, size: int, own: PixelRule | None = None) -> PixelRule:
        """Return the pixel rule: the caller's, else the checkpoint's, else the base's.

        Args:
            folder: where `preprocessor_config.json` would be.
            size: edge of the pictures that the image tower reads, where the rule does not say.
            own: the rule that a checkpoint of another layout tells.

        Raises:
            ValueError: there is none of them, or one of another size than the tower's.
        """
        rule, where = self._rule(folder, size, own), visible(folder)
        if rule.size != (size, size):
            raise ValueError(
                f"Expected pictures of {size} x {size} pixels, as the image tower of {where} reads, but the "
                f"preprocessing gives {rule.size[0]} x {rule.size[1]}: give the right one as `preprocessing=`."
            )
        return rule

    def _rule(self, folder: Path, size: int, own: PixelRule | None) -> PixelRule:
        if isinstance(self.preprocessing, PixelRule):
            return self.preprocessing
        if self.preprocessing == "clip":
            return PixelRule((size, size), tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD))
        if self.preprocessing is not None:
            return _read_rule(local_folder(self.preprocessing, offline=self.offline), size)
        if own is not None:
            return own
        if self.base is not None and not has_pixel_rule(folder):
            rule: PixelRule = self.base.pixel_rule
            return rule
        return _read_rule(folder, size)


NOTHING = Supplied()


def has_pixel_rule(folder: Path) -> bool:
    """Return whether a folder says how pictures become pixels."""
    return any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json"))


def _read_rule(folder: Path, size: int) -> PixelRule:
    if not has_pixel_rule(folder):
        raise ValueError(
            f"Expected a preprocessor_config.json in {visible(folder)}, but there is none: give `preprocessing=` (a "
            "folder, a hub id, a PixelRule, or 'clip' for OpenAI's), or `base=` (the model it was made from)."
        )
    return PixelRule.from_pretrained(folder, default_size=size, offline=True)
