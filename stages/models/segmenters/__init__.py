"""Segmenters: networks, the configs that name them, their weights on disk, and whole predictions.

No stage of its own: train makes them, evaluate scores them, and pseudolabel may label with one. To
add one, add a file to networks/ and one to models/.
"""
