"""Stage two: labeled images, other images and their pseudo-labels in, a segmenter out.

One loop, many label sources: a published method is a perturbation, a list of label sources and a
network (stages/models/segmenters/). A new perturbation or label source is one file in
step/perturbations/ or step/label_sources/.
"""
