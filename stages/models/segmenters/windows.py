"""Positions of sliding windows."""

from typing import Literal


def starts(
    length_px: int, window_px: int, stride_px: int, mode: Literal["clip", "snap"]
) -> list[int]:
    """First pixels of the windows that cover one side of an image.

    Args:
        length_px: The image's side.
        window_px: The window's.
        stride_px: Distance between windows.
        mode: `clip`: one every stride, as long as they begin inside; what lies beyond the border is
            to be cut off (UniMatch V1's Cityscapes evaluation). `snap`: the last one is moved back
            inside, and none follows; a side shorter than a window has one, at 0 (UniMatch V2,
            SemiVL, mmsegmentation).
    """
    if mode == "clip":
        return [*range(0, length_px, stride_px)]
    last = max(0, length_px - window_px)
    return [*range(0, last, stride_px), last]
