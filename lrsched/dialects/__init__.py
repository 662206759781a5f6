"""The schedulers of torch, transformers and DeepSpeed, as those libraries really apply them."""
