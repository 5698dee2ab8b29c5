"""One file a supervised loss: the loss of labeled crops."""
