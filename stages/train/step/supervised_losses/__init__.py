"""One file a supervised loss: what logits of labeled crops cost."""
