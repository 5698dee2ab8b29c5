"""Raw images in, rows of the images manifest out: who is there, readable, and labeled how.

To add a source, add one file to sources/; see sources/base.py.
"""
