"""Annotation files of other tools in, shapes out, and the label files that are drawn from them.

A file per format has `read(...)`, which gives an `AnnotatedImage` for each image and adds what is
wrong with single annotations to `Findings`. It knows neither configs nor sources, and opens no
image. `shapes.py` has what all of them return, `drawing.py` turns it into pixels.
"""
