"""BERT's uncased word pieces from a vocabulary file, with the special tokens that a family puts around a text."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def wordpiece_tokenizer(vocabulary: Path | str, *, template: str, extra: Sequence[str] = ()) -> PreTrainedTokenizerBase:
    """Build the tokenizer of `bert-base-uncased` from its `vocab.txt`.

    Args:
        vocabulary: one piece per line; its line number is its id.
        template: what stands around a text, as "[CLS] $A [SEP]".
        extra: special tokens that follow the vocabulary, in the order of their ids.

    Raises:
        ValueError: the file cannot be read, repeats a piece, or lacks one of BERT's special tokens.
    """
    try:
        pieces = Path(vocabulary).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected a vocabulary with one piece per line at {vocabulary}, but got: {error}") from error
    ids = {piece: line for line, piece in enumerate(pieces)}
    if len(ids) != len(pieces):
        raise ValueError(
            f"Expected different pieces in {vocabulary}, but {len(pieces) - len(ids)} repeat an earlier one."
        )
    missing = [token for token in SPECIAL if token not in ids]
    if missing:
        raise ValueError(f"Expected BERT's special tokens in {vocabulary}, but {missing} are missing.")
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (*SPECIAL, *extra)])
    around = [(token, tokenizer.token_to_id(token)) for token in template.split() if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=around)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
