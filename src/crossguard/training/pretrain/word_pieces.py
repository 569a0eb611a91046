"""A tokenizer of whole words, with letters and endings for words it does not know."""

import string
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[MASK]", "[CLS]", "[SEP]")
_ENDINGS = ("s", "es", "ed", "ing", "er", "ers", "ly", "al", "ness")


def build_tokenizer(words: Iterable[str], *, context_length: int) -> PreTrainedTokenizerFast:
    """Return a word-piece tokenizer of the given lower-case words; `[SEP]` ends a text, `[MASK]` hides a word.

    Args:
        words: the words to know whole, of the letters a to z.
        context_length: the most tokens of a text, the two special ones included.
    """
    pieces = [*string.ascii_lowercase, *(f"##{piece}" for piece in (*string.ascii_lowercase, *_ENDINGS))]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*SPECIAL, *pieces, *sorted(set(words))]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex("['\u2019]"), ""),
            normalizers.Replace(Regex("[^a-z]+"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_max_length=context_length,
    )
