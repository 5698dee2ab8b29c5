"""What several stages say of pixels: pseudo-labels, reading images and label files, scores."""
