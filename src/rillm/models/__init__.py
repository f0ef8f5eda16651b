"""Models: the facts of a checkpoint, its weights, and the forward pass over a KV cache."""
