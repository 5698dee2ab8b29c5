"""The embedded sandbox: a drawn world with exact masks, and a tiny CLIP that has seen its web."""
