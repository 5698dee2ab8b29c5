"""Uses a trained network on any images: no stage of a run, its results go where the user says."""
