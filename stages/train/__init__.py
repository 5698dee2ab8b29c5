"""Stage two: labeled images, other images and their pseudo-labels in, a segmenter out.

One loop, many label sources: a published method is a perturbation, a list of label sources and a
network (stages/models/segmenters/). To add one of the first two, add one file to perturbations/ or
label_sources/.
"""
