"""One package a stage, each starting at its stage.py; graph.py lists them in order."""
