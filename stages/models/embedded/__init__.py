"""The tiny CLIP and SAM that come with Maskmill: their weights, and the code that loads them.

`models` names them and their files; `tools/sandbox` trained them.
"""
