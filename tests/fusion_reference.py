"""ALBEF's and BLIP's networks written a second time, as plain functions of a state dict, from the papers' equations.

Nothing here comes from the library. ViT: Dosovitskiy et al. (2021), eqs. 1-4. BERT: post-norm transformer of Vaswani et
al. (2017) with GELU. Attention is written out head by head.
"""

import math
import re

import torch

WORDS = "a red green blue yellow disc square cross left right small picture of the on side bright man s dog well known"


def write_vocabulary(path):
    pieces = ["[PAD]", *[f"[unused{i}]" for i in range(3)], "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces += [",", "'", "?", "-", "/", "[", "]", *WORDS.split(), "##s", "##ing", "mans", "drawing", "draw"]
    path.write_text("\n".join(pieces) + "\n")
    return pieces


def linear(state, name, x):
    return torch.einsum("...i,oi->...o", x, state[f"{name}.weight"]) + state[f"{name}.bias"]


def norm(state, name, x, eps):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def attend(q, k, v, heads, mask=None):
    """One sample at a time, one head at a time; `mask` [samples, places] of zeros and ones."""
    size = q.shape[-1] // heads
    outs = []
    for sample in range(len(q)):
        parts = []
        for head in range(heads):
            cut = slice(head * size, (head + 1) * size)
            scores = q[sample, :, cut] @ k[sample, :, cut].T / math.sqrt(size)
            if mask is not None:
                scores = scores[:, mask[sample].bool()]
                values = v[sample, mask[sample].bool(), cut]
            else:
                values = v[sample, :, cut]
            weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
            parts.append(weights @ values)
        outs.append(torch.cat(parts, -1))
    return torch.stack(outs)


def layers_in(state, prefix):
    return 1 + max(int(m[1]) for key in state if (m := re.match(re.escape(prefix) + r"(\d+)\.", key)))


def vit(state, pixels, heads, prefix="visual_encoder.", eps=1e-6):
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    x = (pixels - mean) / std
    kernel = state[f"{prefix}patch_embed.proj.weight"]
    p = kernel.shape[-1]
    rows, columns = x.shape[2] // p, x.shape[3] // p
    patches = [
        x[:, :, r * p : (r + 1) * p, c * p : (c + 1) * p].reshape(len(x), -1)
        for r in range(rows)
        for c in range(columns)
    ]
    tokens = torch.stack(patches, 1) @ kernel.reshape(len(kernel), -1).T + state[f"{prefix}patch_embed.proj.bias"]
    tokens = torch.cat([state[f"{prefix}cls_token"].expand(len(x), 1, -1), tokens], 1) + state[f"{prefix}pos_embed"]
    for n in range(layers_in(state, f"{prefix}blocks.")):
        name = f"{prefix}blocks.{n}."
        q, k, v = linear(state, f"{name}attn.qkv", norm(state, f"{name}norm1", tokens, eps)).chunk(3, -1)
        tokens = tokens + linear(state, f"{name}attn.proj", attend(q, k, v, heads))
        wide = gelu(linear(state, f"{name}mlp.fc1", norm(state, f"{name}norm2", tokens, eps)))
        tokens = tokens + linear(state, f"{name}mlp.fc2", wide)
    return norm(state, f"{prefix}norm", tokens, eps)


def embed(state, ids, prefix):
    words = state[f"{prefix}embeddings.word_embeddings.weight"][ids]
    places = state[f"{prefix}embeddings.position_embeddings.weight"][: ids.shape[1]]
    kinds = state.get(f"{prefix}embeddings.token_type_embeddings.weight")
    kind = 0 if kinds is None else kinds[0]
    return norm(state, f"{prefix}embeddings.LayerNorm", words + places + kind, 1e-12)


def bert(state, x, mask, heads, layers, prefix="text_encoder.", image=None):
    for n in layers:
        name = f"{prefix}encoder.layer.{n}."
        x = sublayer(state, f"{name}attention", x, x, heads, mask)
        if image is not None:
            x = sublayer(state, f"{name}crossattention", x, image, heads, None)
        wide = gelu(linear(state, f"{name}intermediate.dense", x))
        x = norm(state, f"{name}output.LayerNorm", linear(state, f"{name}output.dense", wide) + x, 1e-12)
    return x


def sublayer(state, name, x, context, heads, mask):
    q, k, v = (
        linear(state, f"{name}.self.{part}", source)
        for part, source in (("query", x), ("key", context), ("value", context))
    )
    mixed = attend(q, k, v, heads, mask)
    return norm(state, f"{name}.output.LayerNorm", linear(state, f"{name}.output.dense", mixed) + x, 1e-12)


def vision_shapes(width, layers, patch, grid, prefix="visual_encoder."):
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, grid * grid + 1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for n in range(layers):
        for part, (out, into) in {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            shapes[f"blocks.{n}.{part}.weight"] = (out, into)
            shapes[f"blocks.{n}.{part}.bias"] = (out,)
        for part in ("norm1", "norm2"):
            shapes[f"blocks.{n}.{part}.weight"] = shapes[f"blocks.{n}.{part}.bias"] = (width,)
    return {prefix + key: shape for key, shape in shapes.items()}


def text_shapes(width, layers, fusion, vocabulary, positions, image_width, prefix="text_encoder.", kinds=2):
    """`fusion`: the layers with cross-attention; `kinds`: token types, or None."""
    shapes = {
        "embeddings.word_embeddings.weight": (vocabulary, width),
        "embeddings.position_embeddings.weight": (positions, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    if kinds:
        shapes["embeddings.token_type_embeddings.weight"] = (kinds, width)
    for n in range(layers):
        name = f"encoder.layer.{n}."
        dense = {"intermediate.dense": (4 * width, width), "output.dense": (width, 4 * width)}
        norms = ["output.LayerNorm"]
        for kind, into in (("attention", width), ("crossattention", image_width)):
            if kind == "attention" or n in fusion:
                dense |= {
                    f"{kind}.self.query": (width, width),
                    f"{kind}.self.key": (width, into),
                    f"{kind}.self.value": (width, into),
                    f"{kind}.output.dense": (width, width),
                }
                norms.append(f"{kind}.output.LayerNorm")
        for part, (out, into) in dense.items():
            shapes[f"{name}{part}.weight"], shapes[f"{name}{part}.bias"] = (out, into), (out,)
        for part in norms:
            shapes[f"{name}{part}.weight"] = shapes[f"{name}{part}.bias"] = (width,)
    return {prefix + key: shape for key, shape in shapes.items()}


def fill(shapes, seed):
    """Random tensors of the given shapes, scaled so that every part shows in the result."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=generator) * 0.15
        state[key] = value + 1 if re.search(r"(norm\d?|LayerNorm)\.weight$", key) else value
    return state
