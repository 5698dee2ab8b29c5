"""One file a model: the config of a network, and where its pretrained weights come from.

The file's name is the model's name in a config. To add one, add a file with a subclass of `Model`
of base.py.
"""
