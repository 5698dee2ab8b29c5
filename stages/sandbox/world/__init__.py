"""The drawn world: `world.render` makes a scene from a domain, a seed and an index."""
