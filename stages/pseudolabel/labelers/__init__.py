"""One file a labeler: anything that turns images into pseudo-labels without the student."""
