"""Development tools: run from a clone, not part of the wheel."""
