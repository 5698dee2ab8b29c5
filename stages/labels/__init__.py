"""Per-pixel labels, used by several stages: pseudo-labels, image and label files, scores."""
