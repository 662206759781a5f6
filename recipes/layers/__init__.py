"""What the layers of a T5 compute: transformers' model, faster."""
