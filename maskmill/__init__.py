"""Maskmill: turns web images into training labels, and training labels into a segmenter.

The command line is in `maskmill.cli`. Importing this package imports nothing else.
"""

__version__ = "0.1.0"
