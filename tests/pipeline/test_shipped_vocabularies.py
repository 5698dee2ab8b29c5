"""Every file in configs/vocabularies/, and what the published ones must hold."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config.config import parse_section
from pipeline.config.vocabulary import IGNORE, Vocabulary
from pipeline.config.yaml_files import read_yaml
from tests.repository import shipped as shipped_files

FOLDER = Path(__file__).parents[2] / "configs" / "vocabularies"


def shipped(name: str) -> Vocabulary:
    path = FOLDER / f"{name}.yaml"
    return parse_section(Vocabulary, read_yaml(path, fix="ship it"), path=path)


def mask_of(vocabulary: Vocabulary, values: list[int], scheme: str | None = None) -> list[int]:
    mask, unknown = vocabulary.to_mask(np.array([values]), scheme)
    assert not unknown
    ids: list[int] = mask[0].tolist()
    return ids


@pytest.mark.parametrize(
    "path", shipped_files("configs/vocabularies/*.yaml"), ids=lambda path: path.stem
)
def test_a_vocabulary_is_named_after_its_file_and_can_be_asked(path: Path) -> None:
    vocabulary = shipped(path.stem)
    assert vocabulary.name == path.stem
    vocabulary.check_concepts()
    for scheme in (None, *vocabulary.label_schemes):
        assert vocabulary.scheme_facts(scheme)
    concepts = [c for entry in vocabulary.classes for c in entry.asked]
    assert len(set(concepts)) == len(concepts)  # a concept of two classes tells neither
    assert len(set(vocabulary.background_concepts)) == len(vocabulary.background_concepts)


@pytest.mark.parametrize(
    ("name", "classes", "concepts", "background", "prompts"),
    [
        ("voc", 21, 53, 45, "single"),  # 98 in all
        ("voc-sclip", 21, 30, 26, "mean-80"),
        ("voc-semiovs", 21, 20, 151, "mean-80"),  # SED is asked 171
        ("pascal-context", 60, 59, 103, "mean-80"),
        ("cityscapes", 19, 54, 0, "single"),
        ("coco", 81, 81, 0, "single"),
        ("coco-stuff", 171, 171, 0, "mean-80"),
        ("ade20k", 150, 150, 0, "single"),
    ],
)
def test_published_lists_are_as_long_as_published(
    name: str, classes: int, concepts: int, background: int, prompts: str
) -> None:
    vocabulary = shipped(name)
    assert vocabulary.num_classes == classes
    assert sum(len(entry.asked) for entry in vocabulary.classes) == concepts
    assert len(vocabulary.background_concepts) == background
    assert vocabulary.prompts == prompts
    assert (vocabulary.background_id == 0) == (name[:3] in ("voc", "pas") or name == "coco")


def test_voc_is_the_same_however_it_is_asked() -> None:
    voc, *others = (shipped(name) for name in ("voc", "voc-sclip", "voc-semiovs"))
    for other in others:
        assert other.class_names == voc.class_names
        assert other.palette.tolist() == voc.palette.tolist()
        assert other.label_schemes == voc.label_schemes
    synonyms = {entry.name: entry.asked for entry in others[1].classes}
    assert synonyms["tvmonitor"] == (("tv", "monitor", "standalone screen"),)
    maxima = {entry.name: entry.asked for entry in voc.classes}
    assert maxima["tvmonitor"] == (("tv",), ("monitor",), ("standalone screen",))


def test_vocs_palette_is_vocs() -> None:
    """Bits 0, 1 and 2 of an id are the top bits of red, green and blue, and so on downwards."""
    palette = shipped("voc").palette
    assert palette[:3].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert palette[20].tolist() == [0, 64, 128]
    bits = np.unpackbits(np.arange(21, dtype=np.uint8)[:, None], axis=1)[:, ::-1]
    for channel in range(3):
        expected = sum(bits[:, channel + 3 * n].astype(int) << (7 - n) for n in range(2))
        assert palette[:21, channel].tolist() == np.asarray(expected).tolist()


def test_vocs_masks_are_read_with_and_without_colours() -> None:
    voc = shipped("voc")
    assert mask_of(voc, [0, 20, 255]) == [0, 20, IGNORE]
    colors = np.array([[[0, 0, 0], [0, 64, 128], [224, 224, 192]]], np.uint8)
    mask, unknown = voc.to_mask(colors, "colors")
    assert (mask.tolist(), unknown) == ([[0, 20, IGNORE]], [])


def test_cityscapes_ids_become_train_ids() -> None:
    cityscapes = shipped("cityscapes")
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert mask_of(cityscapes, ids, "labelIds") == [*range(19)]
    void = sorted({*range(34)} - {*ids})
    assert mask_of(cityscapes, void, "labelIds") == [IGNORE] * 15
    assert mask_of(cityscapes, [0, 18, 255]) == [0, 18, IGNORE]
    painted = cityscapes.palette[:19][None]
    assert cityscapes.to_mask(painted, "colors")[0].tolist() == [[*range(19)]]


def test_ade20k_counts_from_one() -> None:
    ade = shipped("ade20k")
    assert mask_of(ade, [0, 1, 150], "ade") == [IGNORE, 0, 149]
    assert (ade.class_names[0], ade.class_names[7], ade.class_names[149]) == ("wall", "bed", "flag")


def test_cocos_ids_have_gaps() -> None:
    coco, stuff = shipped("coco"), shipped("coco-stuff")
    assert coco.class_names[1:] == stuff.class_names[:80]
    assert mask_of(coco, [0, 1, 11, 13, 90, 255], "category-ids") == [0, 1, 11, 12, 80, IGNORE]
    assert mask_of(coco, [0, 10, 12, 89, 91, 181, 255], "stuffthingmaps") == [
        *(1, 11, 12, 80, 0, 0, IGNORE)
    ]
    assert mask_of(stuff, [0, 10, 12, 89, 91, 181, 255], "stuffthingmaps") == [
        *(0, 10, 11, 79, 80, 170, IGNORE)
    ]
    assert stuff.to_mask(np.array([[11]]), "stuffthingmaps")[1] == ["11"]  # no such category
    assert (stuff.class_names[80], stuff.class_names[170]) == ("banner", "wood")


def test_pascal_contexts_classes_come_in_two_orders() -> None:
    context = shipped("pascal-context")
    names = ("background", "aeroplane", "bicycle", "tv/monitor", "bag", "wood")
    expected = [context.class_names.index(name) for name in names]
    assert mask_of(context, [0, 1, 2, 20, 21, 59], "mmseg") == expected
    assert expected[:2] + expected[-1:] == [0, 1, 59]
    values = [context.to_mask(np.array([[n]]), "mmseg")[0].item() for n in range(60)]
    assert sorted(values) == [*range(60)]


def test_medical_masks_are_read_as_they_are_published() -> None:
    chase, covid = shipped("chase-db1"), shipped("covid-19-ct")
    assert mask_of(chase, [0, 1, 255], "observer") == [0, 1, 1]
    assert mask_of(covid, [0, 1, 2, 3]) == [0, 1, 2, 3]
    assert covid.class_names[1:] == ("ground-glass", "consolidation", "pleural effusion")
