"""CLIP models of open_clip: features for each location of an image, and texts as embeddings.

Segmenters and labelers use them.
"""
