"""Ids put together from words are those that the tokenizer gives."""

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from crossguard.models import load_model
from crossguard.models import token_ids as room
from crossguard.models.token_ids import token_ids
from crossguard.models.wordpiece import wordpiece_tokenizer
from shared import WORDS, word_tokenizer


def clip_tokenizer():
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*letters, *(letter + "</w>" for letter in letters)]
    merges = [("r", "e"), ("re", "d</w>"), ("s", "m"), ("sm", "a"), ("l", "l</w>"), ("sma", "ll</w>")]
    tokens = ["<|startoftext|>", "<|endoftext|>", *pieces, *(a + b for a, b in merges)]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)


def bert_tokenizer(tmp_path):
    file = tmp_path / "vocab.txt"
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *("##" + x for x in letters if x.isalpha()),
        "red",
    ]
    file.write_text("\n".join(pieces))
    return wordpiece_tokenizer(file, template="[CLS] $A [SEP]")


def gluing_tokenizer():
    """Pieces that know of the space before them: no word stands for itself."""
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *((x, -1.0) for x in "▁abcdeghilmnorstu")], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<unk>", unk_token="<unk>")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    return {
        "words": word_tokenizer(),
        "clip": clip_tokenizer(),
        "bert": bert_tokenizer(tmp_path_factory.mktemp("bert")),
        "emoji-clip": load_model("emoji-clip").tokenizer,
        "gluing": gluing_tokenizer(),
    }


texts = st.one_of(
    st.lists(st.sampled_from([*WORDS, "Red,", "don't", "[MASK]", "[PAD]", "it's-a", "x" * 30, "!?", "  "])).map(
        " ".join
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    st.text(),
)


@pytest.mark.parametrize("name", ["words", "clip", "bert", "emoji-clip", "gluing"])
@settings(max_examples=25)
@given(asked=st.lists(texts, min_size=1, max_size=6), most=st.integers(4, 12), side=st.sampled_from(["right", "left"]))
def test_ids_are_those_of_the_tokenizer(tokenizers, name, asked, most, side):
    tokenizer = tokenizers[name]
    options = {"padding": True, "truncation": True, "max_length": most, "padding_side": side}
    told = tokenizer(asked, **options, return_attention_mask=True, return_tensors="pt")
    for _ in range(2):
        found = token_ids(tokenizer, asked, most=most, padding_side=side)
        assert torch.equal(found.ids, told["input_ids"].long())
        assert torch.equal(found.mask, told["attention_mask"].bool())


def test_words_are_put_together_where_they_can_be_and_nowhere_else(tokenizers):
    frames = {name: room._Reader(tokenizer, 8).frame for name, tokenizer in tokenizers.items()}
    assert {name for name, frame in frames.items() if frame is None} == {"gluing"}


def test_a_tokenizer_that_learns_a_token_reads_anew():
    tokenizer = word_tokenizer()
    before = token_ids(tokenizer, ["a red zebra"], most=8).ids
    tokenizer.add_tokens(["zebra"])
    after = token_ids(tokenizer, ["a red zebra"], most=8).ids
    assert before[0, 3] == tokenizer.unk_token_id
    assert after[0, 3] == tokenizer.convert_tokens_to_ids("zebra") != tokenizer.unk_token_id


def test_no_more_is_kept_than_allowed(monkeypatch):
    monkeypatch.setattr(room, "_MOST", 4)
    tokenizer = word_tokenizer()
    for text in ("a red disc", "a blue square on the left", "a red cross"):
        told = tokenizer([text], truncation=True, max_length=16)["input_ids"][0]
        assert token_ids(tokenizer, [text], most=16).ids[0].tolist() == told
    assert len(room._READERS[tokenizer].words.known) <= 6


def test_what_is_kept_goes_with_the_tokenizer():
    tokenizer = word_tokenizer()
    token_ids(tokenizer, ["a red disc"], most=8)
    kept = len(room._READERS)
    del tokenizer
    gc.collect()
    assert len(room._READERS) < kept
