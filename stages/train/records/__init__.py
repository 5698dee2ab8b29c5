"""What is recorded of a training: its log, TensorBoard event files, example pictures."""
