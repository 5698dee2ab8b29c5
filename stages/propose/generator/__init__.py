"""Images in, SAM's masks of everything in them out."""
