"""One file a perturbation: which views a step makes, and which of them learn from the labels."""
