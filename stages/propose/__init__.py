"""Stage one, before any class is known: images of the manifest in, SAM's masks of each out."""
