"""One file a label source: labels for images that have no hand-made label."""
