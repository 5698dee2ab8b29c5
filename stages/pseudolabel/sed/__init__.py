"""SED (arXiv 2311.15537): scores each text at each pixel of an image."""
