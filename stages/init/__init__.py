"""The way in: looks at a folder of images, and writes a config and a vocabulary that run."""
