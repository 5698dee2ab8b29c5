"""The HTML page that shows what a run gained: tables, stored labels, predictions beside truth."""
