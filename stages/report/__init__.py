"""Scores, labels and predictions in, an HTML page with tables and pictures out."""
