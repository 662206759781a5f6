"""Model, DeepSpeed engine, the update loop, evaluation, checkpoints, export. Knows nothing of Ray."""
