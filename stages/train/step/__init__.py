"""One training step: a batch of crops in, losses out. Start at step.py."""
