"""The drawn world: domain, seed and index in, a scene with image, classes and caption out."""
