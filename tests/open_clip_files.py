"""A tiny CLIP of random weights in open_clip's files."""

import json

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from fusion_reference import fill
from shared import WORDS


def tokenizer_with_ends_last():
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *dict.fromkeys(WORDS), "[BOS]", "[EOS]"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[(token, vocabulary[token]) for token in ("[BOS]", "[EOS]")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", eos_token="[EOS]"
    )


TOKENIZER = tokenizer_with_ends_last()
MODEL = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 24, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": len(TOKENIZER), "width": 24, "heads": 3, "layers": 2},
    "quick_gelu": True,
}
BLOCK = {"attn.out_proj": (1, 1), "mlp.c_fc": (4, 1), "mlp.c_proj": (1, 4)}


def released():
    """The state dict of open_clip's CLIP at the sizes of MODEL, random."""
    shapes = {
        "visual.class_embedding": (32,),
        "visual.positional_embedding": (10, 32),
        "visual.conv1.weight": (32, 3, 8, 8),
        "visual.proj": (32, 12),
        "token_embedding.weight": (len(TOKENIZER), 24),
        "positional_embedding": (16, 24),
        "text_projection": (24, 12),
    }
    names = [("visual.ln_pre", 32), ("visual.ln_post", 32), ("ln_final", 24)]
    for prefix, width in (("visual.transformer", 32), ("transformer", 24)):
        for block in (f"{prefix}.resblocks.{n}." for n in range(2)):
            shapes |= {f"{block}attn.in_proj_weight": (3 * width, width), f"{block}attn.in_proj_bias": (3 * width,)}
            for part, (out, into) in BLOCK.items():
                shapes |= {f"{block}{part}.weight": (out * width, into * width), f"{block}{part}.bias": (out * width,)}
            names += [(f"{block}ln_1", width), (f"{block}ln_2", width)]
    for name, width in names:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    state = fill(shapes, seed=5)
    for name, _ in names:
        state[f"{name}.weight"] = state[f"{name}.weight"] + 1
    return state | {"logit_scale": torch.tensor(2.0)}


def write(folder, state, model=MODEL, *, file="open_clip_model.safetensors", **preprocess):
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    TOKENIZER.save_pretrained(folder)
    state = {key: value.contiguous().clone() for key, value in state.items()}
    save_file(state, folder / file) if file.endswith("safetensors") else torch.save(state, folder / file)
    return folder
