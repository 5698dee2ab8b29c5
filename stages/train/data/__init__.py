"""Batches of crops as a function of seed and step: reading, geometry, colors, random numbers."""
