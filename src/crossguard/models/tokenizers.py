"""Reading tokenizers: what is missing or broken is said, not made up."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
"""Files that hold a tokenizer's vocabulary in Transformers' layouts; one of them must be there."""


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
    if folder.is_dir() and not any((folder / file).is_file() for file in FILES):
        raise ValueError(f"Expected a tokenizer in {folder}, one of {', '.join(FILES)}, but none is there.")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(source), local_files_only=offline, **options
        )
    except Exception as error:  # the reader of tokenizer.json raises plain Exception
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"Expected a tokenizer in {source}, but it could not be read: {reason}") from error
    return tokenizer
