"""Scores to a class and a confidence per pixel; no config, no files."""
