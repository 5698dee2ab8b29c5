"""The way back: labels that were exported and corrected in another tool become labeled images."""
