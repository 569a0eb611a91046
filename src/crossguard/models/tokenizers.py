"""Reading tokenizers: what is missing or broken is said, not made up; CLIP's own comes with the package."""

import gzip
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerBase

from crossguard.checks import visible

FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
"""Files that hold a tokenizer's vocabulary in Transformers' layouts; one of them must be there."""


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds a vocabulary."""
    return any((folder / file).is_file() for file in FILES)


def load_tokenizer(source: Path | str, *, offline: bool, **options: Any) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local folder or a hub id.

    Args:
        source: the folder or hub id.
        offline: look only at local files.
        options: further options of Transformers' `AutoTokenizer.from_pretrained`.

    Raises:
        ValueError: a folder without vocabulary, for which Transformers would make up an empty one, or a file that
            cannot be read.
    """
    folder = Path(str(source))
    if folder.is_dir() and not has_tokenizer(folder):
        raise ValueError(
            f"Expected a tokenizer in {visible(folder)}, one of {', '.join(FILES)}, but none is there: give "
            "`tokenizer=` (a folder, a hub id, or 'clip' for OpenAI's), or `base=` (the model it was made from)."
        )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(source), local_files_only=offline, **options
        )
    except Exception as error:  # the reader of tokenizer.json raises plain Exception
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"Expected a tokenizer in {source}, but it could not be read: {reason}") from error
    return tokenizer


def clip_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer of CLIP and of open_clip's plain text towers: 49,408 tokens, lower case.

    The tokens are the 256 bytes (printable ones stand for themselves, the others for signs from U+0100 on), the bytes
    at a word's end, what each merge makes, and the two that begin and end a text.
    """
    packed = files("crossguard.models") / "assets" / "clip-bpe" / "merges.txt.gz"
    merges = [
        (left, right)
        for left, right in (
            line.split(" ") for line in gzip.decompress(packed.read_bytes()).decode("utf-8").splitlines()
        )
    ]
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    signs = [chr(byte) for byte in plain] + [chr(256 + place) for place in range(256 - len(plain))]
    tokens = [*signs, *(sign + "</w>" for sign in signs), *(left + right for left, right in merges)]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, *, size: int, end: int | None, where: Path | str) -> None:
    """Check that a tokenizer is of the vocabulary that a text tower embeds.

    Args:
        tokenizer: with the tokens that were added to it.
        size: rows of the tower's token embedding.
        end: id that ends a text for the tower; None where it does not care.
        where: the checkpoint, for the message.

    Raises:
        ValueError: it gives ids that have no row, or ends texts otherwise.
    """
    highest = max(tokenizer.get_vocab().values(), default=-1)
    cure = "give the right one as `tokenizer=`, or the model that has it as `base=`."
    if highest >= size:
        raise ValueError(
            f"Expected a tokenizer of at most {size:,} tokens for {visible(where)}, but its ids go up to {highest:,}: "
            f"{cure}"
        )
    if end is not None and tokenizer.eos_token_id != end:
        raise ValueError(
            f"Expected a tokenizer that ends texts with id {end} for {visible(where)}, but its end is "
            f"{tokenizer.eos_token_id}: {cure}"
        )
