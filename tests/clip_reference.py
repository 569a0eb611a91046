"""CLIP written a second time from its paper, as plain functions of a state dict in open_clip's and OpenAI's keys.

Pre-norm blocks, a causal text transformer read at the text's end; a ViT read at its class token, or a ResNet with three
stem convolutions, means in the place of strides, and attention in the place of the last mean.
"""

import torch
from torch.nn.functional import conv2d

from fusion_reference import attend, gelu, layers_in, linear, norm

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)


def block(state, name, x, heads, *, causal, quick):
    q, k, v = (
        norm(state, f"{name}ln_1", x, 1e-5) @ state[f"{name}attn.in_proj_weight"].T + state[f"{name}attn.in_proj_bias"]
    ).chunk(3, -1)
    if causal:
        rows = [attend(q[:, t : t + 1], k[:, : t + 1], v[:, : t + 1], heads) for t in range(x.shape[1])]
        mixed = torch.cat(rows, 1)
    else:
        mixed = attend(q, k, v, heads)
    x = x + linear(state, f"{name}attn.out_proj", mixed)
    wide = linear(state, f"{name}mlp.c_fc", norm(state, f"{name}ln_2", x, 1e-5))
    wide = wide * torch.sigmoid(1.702 * wide) if quick else gelu(wide)
    return x + linear(state, f"{name}mlp.c_proj", wide)


def vit_image(state, pixels, heads, *, quick, patch=8):
    x = conv2d((pixels - MEAN) / STD, state["visual.conv1.weight"], stride=patch).flatten(2).transpose(1, 2)
    x = torch.cat([state["visual.class_embedding"].expand(len(x), 1, -1), x], 1) + state["visual.positional_embedding"]
    x = norm(state, "visual.ln_pre", x, 1e-5)
    for n in range(layers_in(state, "visual.transformer.resblocks.")):
        x = block(state, f"visual.transformer.resblocks.{n}.", x, heads, causal=False, quick=quick)
    return norm(state, "visual.ln_post", x[:, 0], 1e-5) @ state["visual.proj"]


def text(state, ids, ends, heads, *, quick):
    t = state["token_embedding.weight"][ids] + state["positional_embedding"][: ids.shape[1]]
    for n in range(layers_in(state, "transformer.resblocks.")):
        t = block(state, f"transformer.resblocks.{n}.", t, heads, causal=True, quick=quick)
    return norm(state, "ln_final", t[torch.arange(len(t)), ends], 1e-5) @ state["text_projection"]


def resnet_image(state, pixels, heads):
    def conv(name, x, **options):
        return conv2d(x, state[f"visual.{name}.weight"], **options)

    def batch(name, x):
        mean, variance, weight, bias = (
            state[f"visual.{name}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def halved(x):
        return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4

    x = batch("bn1", conv("conv1", (pixels - MEAN) / STD, stride=2, padding=1)).clamp(min=0)
    x = batch("bn2", conv("conv2", x, padding=1)).clamp(min=0)
    x = halved(batch("bn3", conv("conv3", x, padding=1)).clamp(min=0))
    for stage in (1, 2, 3, 4):
        for n in range(layers_in(state, f"visual.layer{stage}.")):
            name, shrinks = f"layer{stage}.{n}", stage > 1 and n == 0
            wide = batch(f"{name}.bn1", conv(f"{name}.conv1", x)).clamp(min=0)
            wide = batch(f"{name}.bn2", conv(f"{name}.conv2", wide, padding=1)).clamp(min=0)
            wide = batch(f"{name}.bn3", conv(f"{name}.conv3", halved(wide) if shrinks else wide))
            if f"visual.{name}.downsample.0.weight" in state:
                x = batch(f"{name}.downsample.1", conv(f"{name}.downsample.0", halved(x) if shrinks else x))
            x = (wide + x).clamp(min=0)
    tokens = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + state["visual.attnpool.positional_embedding"]
    q, k, v = (linear(state, f"visual.attnpool.{part}_proj", tokens) for part in "qkv")
    return linear(state, "visual.attnpool.c_proj", attend(q[:, :1], k, v, heads)[:, 0])
