"""Stage one: labels the images of the manifest, and writes label store, rows and report cards.

To add a labeler, add one file to labelers/; see labelers/base.py.
"""
