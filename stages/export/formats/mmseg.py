"""mmsegmentation: img_dir and ann_dir, by split, and dataset.py to import from a config."""

from __future__ import annotations

from collections.abc import Iterable

from stages.export.formats._png_folders import PngFolders
from stages.export.formats.base import Record


class MmSeg(PngFolders):
    """Writes this format."""

    images, masks = "img_dir/{split}", "ann_dir/{split}"
    only_png = True

    def finish(self, records: Iterable[Record]) -> None:
        """See `Format.finish`."""
        del records  # mmsegmentation lists the folders
        names = list(self.vocabulary.class_names)
        palette = self.vocabulary.palette[: len(names)].tolist()
        lines = [
            "# Made by Maskmill. In a config: _base_ = ['PATH/dataset.py'], and set data_root.",
            f"metainfo = dict(classes={names!r}, palette={palette!r})",
            "data_root = '.'",
        ]
        for split in ("train", "val"):
            lines.append(
                f"{split}_dataset = dict(type='BaseSegDataset', data_root=data_root, "
                f"metainfo=metainfo, data_prefix=dict(img_path='img_dir/{split}', "
                f"seg_map_path='ann_dir/{split}'), img_suffix='.png', seg_map_suffix='.png', "
                "reduce_zero_label=False)"
            )
        self.write_lines("dataset.py", lines)
