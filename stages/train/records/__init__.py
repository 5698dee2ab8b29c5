"""Records of a training: log, TensorBoard event files, example pictures."""
