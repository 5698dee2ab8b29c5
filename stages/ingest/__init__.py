"""Raw images in, rows of the images manifest out: each image's file, state, labels and place.

To add a source, add one file to sources/; see sources/base.py.
"""
