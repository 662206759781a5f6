"""A T5 of bytes that answers in small letters, and ends its answers early enough for different lengths."""

import torch
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

EOS = 1


def readable_model(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = T5Config(
            vocab_size=384,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=1,
            num_heads=4,
            pad_token_id=0,
            eos_token_id=EOS,
            decoder_start_token_id=0,
            tie_word_embeddings=False,
        )
        model = T5ForConditionalGeneration(config)
        head = torch.zeros(384, 32)
        spoken = [EOS, *(ord(letter) + 3 for letter in "abcdefghijklmnopqrstuvwxyz")]
        head[spoken] = torch.randn(len(spoken), 32)
        head[EOS] *= 1.5
        model.lm_head.weight = torch.nn.Parameter(head)
        for name, parameter in model.named_parameters():
            if "EncDecAttention" in name or "SelfAttention" in name:
                parameter.data.mul_(3.0)
    model.config.tie_word_embeddings = False
    model.generation_config = GenerationConfig(decoder_start_token_id=0, pad_token_id=0, eos_token_id=EOS)
    return model.eval()
