"""SAM's checkpoints as Meta published them."""

from pipeline.files.download import Published

_AT = "https://dl.fbaipublicfiles.com/segment_anything"

# The digits in the names are MD5; the keys below are SHA-256 of the same files.
CHECKPOINTS = {
    "vit_b": Published(
        f"{_AT}/sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": Published(
        f"{_AT}/sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": Published(
        f"{_AT}/sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}
"""Checkpoints by segment_anything's names of the models."""
