"""A BERT of a few thousand random weights, as a folder that the source "masked-lm" takes."""

import torch

from crossguard.attacks.words import split_words

TEXTS = ("A small picture, of a red disc!", "the disc is not on the left side", "two plain drawings - 12 \t sofas")
WORDS = [w for text in TEXTS for word in split_words(text) if (w := word.core.lower()).isalpha()]
WORDS += ["large", "bright", "blue", "right", "green", "dog", "house", "tree", "water", "paper"]


def write_bert(folder, extra=()):
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "pic", "dra", "dis", "##ture", "##wing", "##s", "##c"]
    pieces += [word for word in (*WORDS, *extra) if word not in {"picture", "drawings"}]
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))})
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            initializer_range=0.5,
        )
        BertForMaskedLM(config).save_pretrained(folder)
    return folder
