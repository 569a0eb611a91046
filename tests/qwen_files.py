"""A tiny Qwen2.5-VL of random weights in the files of its hub repository."""

import json

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from shared import WORDS, word_tokenizer

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
JINJA = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "<|im_start|> assistant"
)


def qwen(folder, *, seed=0, depth=2):
    """Patches of 4 pixels, merged two by two; windows of 16 pixels, but for the last layer of the tower."""
    tokenizer = word_tokenizer(
        [*WORDS, "user", "assistant", "what", "is", "Provide", "short", "caption", "for", "this", "."]
    )
    tokenizer.add_tokens(list(SPECIAL), special_tokens=True)
    tokenizer.eos_token = "<|im_end|>"
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": depth,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 4,
            "window_size": 16,
            "out_hidden_size": 24,
            "fullatt_block_indexes": [depth - 1],
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 128,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]},
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Qwen2_5_VLForConditionalGeneration(config)
        for weight in network.parameters():
            weight.data = torch.randn_like(weight) * 0.3
    folder.mkdir()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": JINJA}))
    # As released, but for the sizes of patches.
    told = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": 64,
        "max_pixels": 65536,
        "patch_size": 4,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return network.eval()
