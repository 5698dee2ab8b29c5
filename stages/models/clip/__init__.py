"""CLIPs of open_clip: their image sides, location by location, and class lists as text embeddings.

No stage of its own: segmenters may be built on one, and pseudolabel labels with them.
"""
