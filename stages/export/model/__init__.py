"""Trained networks in the files of other runtimes, each checked against the network."""
