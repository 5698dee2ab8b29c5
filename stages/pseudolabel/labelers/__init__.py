"""Labelers, one per file: they turn images into pseudo-labels without the student."""
