"""Stage two: labeled images, other images and their pseudo-labels in, a segmenter out.

One loop, many label sources: a published method is a perturbation, a list of label sources and a
network. To add one of them, add one file to perturbations/, label_sources/ or models/.
"""
