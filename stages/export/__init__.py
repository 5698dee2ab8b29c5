"""The way out for labels: writes stored labels, label files and predictions for other tools."""
