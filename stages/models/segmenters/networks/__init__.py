"""One file a network: images in, logits out; plain modules that know no config and read no files.

To add one, subclass `SegmentationNetwork` of base.py, and add a file to ../models/ that builds it.
"""
