"""Draws the sandbox's images: scenes with exact masks, in a target domain and a web domain."""
