"""An image in, SAM's masks of everything in it out."""
