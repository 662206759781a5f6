"""How good a model is on text pairs: one forward pass, generated text, metrics. Knows nothing of DeepSpeed and Ray."""
