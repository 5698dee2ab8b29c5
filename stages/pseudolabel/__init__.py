"""Stage one: images of the manifest in, pseudo-labels in the store, their rows and cards out.

To add a labeler, add one file to labelers/; see labelers/base.py.
"""
