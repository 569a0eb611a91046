"""A tiny LLaVA-1.5 of random weights in the files of Transformers."""

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from crossguard.models import PixelRule
from shared import WORDS, word_tokenizer


def llava(folder, *, image_size=16):
    tokenizer = word_tokenizer(
        [*WORDS, "USER", "ASSISTANT", ":", "caption", "for", "Provide", "short", "this", ".", "what"]
    )
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    side = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**side, image_size=image_size, patch_size=8),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=96,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LlavaForConditionalGeneration(config)
        for weight in network.parameters():
            weight.data = torch.randn_like(weight) * 0.3
    folder.mkdir()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    PixelRule((image_size, image_size), (0.5,) * 3, (0.5,) * 3).save(folder)
    return network.eval()
