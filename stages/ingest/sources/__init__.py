"""One file a source: where images come from."""
