"""Text in, text out, with a trained model: in one process, or by Ray Data on many workers."""
