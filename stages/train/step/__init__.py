"""One training step: crops in, losses out. Start at step.py."""
