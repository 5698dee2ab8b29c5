"""Trained networks and labeled images in, scores and tables out."""
