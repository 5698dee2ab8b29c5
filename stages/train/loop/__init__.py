"""The training loop: optimizer steps, EMA teacher, validation, checkpoints. Start at build.py."""
