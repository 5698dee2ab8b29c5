"""From scores to a class and a confidence for each pixel; no config, no files."""
