"""One YAML file a published training: its keys of `train`, and under `datasets` what differs there.

The file's name is what `train.preset` names. A file starts with the paper it is from.
"""
