"""Untrusted image bytes in, arrays out; overlays of labels on images."""
