"""One YAML file in, checked sections and a vocabulary out; components by file name."""
