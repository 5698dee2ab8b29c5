"""One file a label source: who provides the labels of images that nobody labeled by hand."""
