"""A T5 of twelve tokens that ends its texts early enough to be of different lengths."""

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

VOCAB, PAD, EOS = 12, 0, 1


def tiny_model(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = T5Config(
            vocab_size=VOCAB,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=PAD,
            tie_word_embeddings=False,
        )
        model = T5ForConditionalGeneration(config)
        # So that the next token depends on the source and on those before.
        model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCAB, 32))
        for name, parameter in model.named_parameters():
            if "EncDecAttention" in name or "SelfAttention" in name:
                parameter.data.mul_(3.0)
    return model.eval()


def sources(num, seed=0):
    """Token ids of sources of 2 to 15 tokens, each with its end token."""
    rng = np.random.default_rng(seed)
    return [np.append(rng.integers(2, VOCAB, rng.integers(1, 15)), EOS).astype(np.int32) for _ in range(num)]
