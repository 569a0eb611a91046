"""How each family cleans captions before its tokenizer; the word that hides a word survives."""

import re
from collections.abc import Callable


def clean_for_albef(text: str, *, max_words: int, mask_token: str = "[MASK]") -> str:
    """Lower-case, delete punctuation, blank hyphens and slashes, cut after `max_words` words.

    Example:
        >>> clean_for_albef("A well-known  man's DOG; [MASK] (left).", max_words=6)
        'a well known mans dog [MASK]'
    """
    return _clean(text, _albef, max_words=max_words, mask_token=mask_token)


def clean_for_blip(text: str, *, max_words: int, mask_token: str = "[MASK]") -> str:
    """Lower-case, blank punctuation but `, ' ? - /`, cut after `max_words` words.

    Example:
        >>> clean_for_blip("A well-known  man's DOG; [MASK] (left).", max_words=6)
        "a well-known man's dog [MASK] left"
    """
    return _clean(text, _blip, max_words=max_words, mask_token=mask_token)


def _albef(text: str) -> str:
    text = re.sub(r"[,.'!?\"()*#:;~]", "", text.lower())
    return text.replace("-", " ").replace("/", " ").replace("<person>", "person")


def _blip(text: str) -> str:
    return re.sub(r"[.!\"()*#:;~]", " ", text.lower())


def _clean(text: str, clean: Callable[[str], str], *, max_words: int, mask_token: str) -> str:
    kept = mask_token.join(clean(part) for part in text.split(mask_token))
    return " ".join(re.sub(r"\s{2,}", " ", kept).rstrip("\n").strip(" ").split(" ")[:max_words])
