"""Which files are images, and which are the label files of which."""

import pytest

from stages.init.pairing import Pairs, pair, paired_with


@pytest.mark.parametrize(
    ("files", "masks", "folders"),
    [
        (
            ["images/a.jpg", "images/b.jpg", "masks/a.png"],
            {"images/a.jpg": "masks/a.png"},
            ("images", "masks"),
        ),
        (
            ["VOC/JPEGImages/a.jpg", "VOC/SegmentationClass/a.png", "VOC/Annotations/a.xml"],
            {"VOC/JPEGImages/a.jpg": "VOC/SegmentationClass/a.png"},
            ("VOC/JPEGImages", "VOC/SegmentationClass"),
        ),
        (["a.jpg", "a.png", "b.jpg"], {"a.jpg": "a.png"}, None),
        (["a.png", "a_mask.png", "b.png"], {"a.png": "a_mask.png"}, None),
        (["a.jpg", "masks/a.png"], {"a.jpg": "masks/a.png"}, None),
        (
            ["img_dir/train/a.jpg", "img_dir/val/a.jpg", "ann_dir/train/a.png"],
            {"img_dir/train/a.jpg": "ann_dir/train/a.png"},
            ("img_dir", "ann_dir"),
        ),
        (
            [
                "leftImg8bit/train/bonn/b_0_leftImg8bit.png",
                *(
                    f"gtFine/train/bonn/b_0_gtFine_{kind}.png"
                    for kind in ("color", "instanceIds", "labelIds", "labelTrainIds")
                ),
            ],
            {
                "leftImg8bit/train/bonn/b_0_leftImg8bit.png": (
                    "gtFine/train/bonn/b_0_gtFine_labelTrainIds.png"
                )
            },
            None,
        ),
        (
            ["imagesTr/case_001_0000.png", "labelsTr/case_001.png"],
            {"imagesTr/case_001_0000.png": "labelsTr/case_001.png"},
            None,
        ),
        (["a.jpg", "b.png", "notes.txt", "shards/0.tar"], {}, None),
    ],
)
def test_label_files_are_found_by_their_names(
    files: list[str], masks: dict[str, str], folders: tuple[str, str] | None
) -> None:
    found = pair(files)
    assert found.masks == masks
    assert found.folders == folders
    assert found.lonely == ()
    assert not {*found.images} & {*masks.values()}
    assert {*masks} <= {*found.images}


def test_a_label_file_without_an_image_is_told() -> None:
    assert pair(["images/a.jpg", "masks/a.png", "masks/z.png"]) == Pairs(
        ("images/a.jpg",), {"images/a.jpg": "masks/a.png"}, ("masks/z.png",), ("images", "masks")
    )


def test_two_folders_are_paired_by_what_their_paths_have_in_common() -> None:
    found = paired_with(["x/a.jpg", "x/b.jpg", "a.jpg"], ["x/a.png", "x/b_mask.png", "z.png"])
    assert found == {"x/a.jpg": "x/a.png", "x/b.jpg": "x/b_mask.png"}
