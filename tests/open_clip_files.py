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
OWN_WORDS = len(TOKENIZER)
MODEL = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 24, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": len(TOKENIZER), "width": 24, "heads": 3, "layers": 2},
    "quick_gelu": True,
}
BLOCK = {"attn.out_proj": (1, 1), "mlp.c_fc": (4, 1), "mlp.c_proj": (1, 4)}


def released(*, words=OWN_WORDS, vision=32, text=24):
    """The state dict of open_clip's CLIP at the sizes of MODEL, random; other sizes where they are given."""
    shapes = {
        "visual.class_embedding": (vision,),
        "visual.positional_embedding": (10, vision),
        "visual.conv1.weight": (vision, 3, 8, 8),
        "visual.proj": (vision, 12),
    } | text_shapes(words, text)
    norms = [("visual.ln_pre", vision), ("visual.ln_post", vision)]
    norms += add_blocks(shapes, "visual.transformer", vision)
    return filled(shapes, [*norms, ("ln_final", text), *add_blocks(shapes, "transformer", text)])


def text_shapes(words, width):
    return {
        "token_embedding.weight": (words, width),
        "positional_embedding": (16, width),
        "text_projection": (width, 12),
    }


def add_blocks(shapes, prefix, width):
    """Add the shapes of two transformer blocks; return their norms."""
    norms = []
    for block in (f"{prefix}.resblocks.{n}." for n in range(2)):
        shapes |= {f"{block}attn.in_proj_weight": (3 * width, width), f"{block}attn.in_proj_bias": (3 * width,)}
        for part, (out, into) in BLOCK.items():
            shapes |= {f"{block}{part}.weight": (out * width, into * width), f"{block}{part}.bias": (out * width,)}
        norms += [(f"{block}ln_1", width), (f"{block}ln_2", width)]
    return norms


def filled(shapes, norms):
    for name, width in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    state = fill(shapes, seed=5)
    for name, _ in norms:
        state[f"{name}.weight"] = state[f"{name}.weight"] + 1
    return state | {"logit_scale": torch.tensor(2.0)}


RESNET = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": MODEL["text_cfg"],
}


def released_resnet(*, words=OWN_WORDS, text=24):
    """The state dict of CLIP's ResNet at the sizes of RESNET, random."""
    layers, width = RESNET["vision_cfg"]["layers"], RESNET["vision_cfg"]["width"]
    convs = {
        "conv1": (width // 2, 3, 3, 3),
        "conv2": (width // 2, width // 2, 3, 3),
        "conv3": (width, width // 2, 3, 3),
    }
    norms = {"bn1": width // 2, "bn2": width // 2, "bn3": width}
    inputs = width
    for stage, blocks in enumerate(layers):
        inner = width * 2**stage
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}."
            convs |= {f"{name}conv1": (inner, inputs, 1, 1), f"{name}conv2": (inner, inner, 3, 3)}
            convs |= {f"{name}conv3": (4 * inner, inner, 1, 1)}
            norms |= {f"{name}bn1": inner, f"{name}bn2": inner, f"{name}bn3": 4 * inner}
            if block == 0:  # another number of channels, or a smaller size
                convs |= {f"{name}downsample.0": (4 * inner, inputs, 1, 1)}
                norms |= {f"{name}downsample.1": 4 * inner}
            inputs = 4 * inner
    shapes = {f"visual.{name}.weight": shape for name, shape in convs.items()}
    shapes |= {"visual.attnpool.positional_embedding": (5, inputs)}
    for part, out in (("k_proj", inputs), ("q_proj", inputs), ("v_proj", inputs), ("c_proj", 12)):
        shapes |= {f"visual.attnpool.{part}.weight": (out, inputs), f"visual.attnpool.{part}.bias": (out,)}
    shapes |= text_shapes(words, text)
    batch = [(f"visual.{name}", channels) for name, channels in norms.items()]
    state = filled(shapes, [*batch, ("ln_final", text), *add_blocks(shapes, "transformer", text)])
    draw = torch.Generator().manual_seed(6)
    for name, channels in batch:
        state[f"{name}.running_mean"] = torch.randn(channels, generator=draw) * 0.1
        state[f"{name}.running_var"] = torch.rand(channels, generator=draw) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)
    return state


def write(folder, state, model=MODEL, *, file="open_clip_model.safetensors", **preprocess):
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    TOKENIZER.save_pretrained(folder)
    state = {key: value.contiguous().clone() for key, value in state.items()}
    save_file(state, folder / file) if file.endswith("safetensors") else torch.save(state, folder / file)
    return folder
