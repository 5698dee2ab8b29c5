"""One file a perturbation: the strong views of a step and the weights of their losses."""
