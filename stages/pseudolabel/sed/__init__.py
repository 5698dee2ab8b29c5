"""SED (arXiv 2311.15537): an image and the embeddings of texts in, a score a text and pixel out."""
