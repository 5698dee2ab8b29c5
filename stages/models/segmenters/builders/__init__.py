"""The networks that a config can name, each with its keys and its pretrained weights.

A file's name is the network's name in a config. To add one, add a file with a subclass of
`ModelBuilder`; the network itself goes to networks/.
"""
