"""Trained networks and labeled images in, metrics, a table and a report out."""
