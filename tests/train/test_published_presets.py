"""The values of presets, compared with the published ones."""

from typing import Any

import pytest

from stages.train.config import VariantConfig
from tests.train.presets import EACH_DATASET, parsed

UNREAD = ("zero-shot-sam-clip", "supmix-sufd")
"""Presets whose papers could not be read to this depth."""


IN_PAPERS = [(name, dataset) for name, dataset in EACH_DATASET if name not in UNREAD]


PUBLISHED = [  # of the papers and their repositories
    ("supervised", "voc", 321, "80 epochs", 0.001, 10, 16),  # twice UniMatch's crops a step
    ("supervised", "cityscapes", 801, "240 epochs", 0.005, 1, 16),
    ("supervised", "coco", 513, "30 epochs", 0.004, 10, 16),
    ("fixmatch", "voc", 321, "80 epochs", 0.001, 10, 8),
    ("fixmatch", "cityscapes", 801, "240 epochs", 0.005, 1, 8),
    ("fixmatch", "coco", 513, "30 epochs", 0.004, 10, 8),
    ("supervised", "voc-priority", 513, "80 epochs", 0.001, 10, 16),
    ("fixmatch", "voc-priority", 513, "80 epochs", 0.001, 10, 8),
    ("unimatch", "voc-priority", 513, "80 epochs", 0.001, 10, 8),
    ("unimatch", "voc", 321, "80 epochs", 0.001, 10, 8),
    ("unimatch", "pascal-context", 321, "80 epochs", 0.001, 10, 8),
    ("unimatch", "cityscapes", 801, "240 epochs", 0.005, 1, 8),
    ("unimatch", "coco", 513, "30 epochs", 0.004, 10, 8),
    ("prevmatch", "voc", 321, "80 epochs", 0.001, 10, 8),
    ("prevmatch", "pascal-context", 321, "80 epochs", 0.001, 10, 8),
    ("prevmatch", "cityscapes", 801, "240 epochs", 0.005, 1, 8),
    ("prevmatch", "coco", 513, "30 epochs", 0.004, 10, 8),
    ("prevmatch", "ade20k", 513, "40 epochs", 0.004, 10, 8),
    ("unimatch-v2", "voc", 518, "60 epochs", 5e-6, 40, 16),
    ("unimatch-v2", "cityscapes", 798, "180 epochs", 5e-6, 40, 8),
    ("unimatch-v2", "coco", 518, "20 epochs", 5e-6, 40, 16),
    ("unimatch-v2", "ade20k", 518, "60 epochs", 5e-6, 40, 8),
    ("semivl", "voc", 512, "80 epochs", 1e-4, 10, 8),
    ("semivl", "cityscapes", 801, "83760 steps", 5e-5, 10, 8),
    ("semivl", "coco", 512, "10 epochs", 4e-4, 10, 8),
    ("semivl", "ade20k", 512, "40 epochs", 4e-4, 10, 8),
    ("semiovs-unimatch", "voc", 321, "80 epochs", 0.001, 10, 8),
    ("semiovs-unimatch", "pascal-context", 321, "80 epochs", 0.001, 10, 8),
    ("semiovs-prevmatch", "voc", 321, "80 epochs", 0.001, 10, 8),
    ("semiovs-prevmatch", "pascal-context", 321, "80 epochs", 0.001, 10, 8),
    ("semiovs-semivl", "voc", 512, "80 epochs", 1e-4, 10, 4),
    ("classmix", "voc", 321, "40000 steps", 2.5e-4, 10, 10),
    ("classmix", "cityscapes", 512, "40000 steps", 2.5e-4, 10, 2),
]


def variant(name: str, dataset: str) -> VariantConfig:
    (found,) = parsed(preset=name, dataset=dataset).values()
    return found


@pytest.mark.parametrize(
    ("name", "dataset", "crop_px", "length", "rate", "multiplier", "batch_size"), PUBLISHED
)
def test_numbers_are_the_published_ones(
    name: str,
    dataset: str,
    crop_px: int,
    length: str,
    rate: float,
    multiplier: float,
    batch_size: int,
) -> None:
    found = variant(name, dataset)
    assert (found.crop_px, found.batch_size) == (crop_px, batch_size)
    assert length == (f"{found.epochs} epochs" if found.epochs else f"{found.steps} steps")
    assert (found.learning_rate, found.decoder_multiplier) == (rate, multiplier)
    assert found.scale == (0.5, 2.0) or name == "classmix"


def test_all_numbers_that_were_published_are_checked() -> None:
    checked = {(name, dataset) for name, dataset, *_ in PUBLISHED}
    assert {*IN_PAPERS} - checked == {
        ("supervised", "ade20k"),  # PrevMatch's schedule
        ("supervised", "pascal-context"),  # SemiOVS's
    }


SGD = ("sgd", 1e-4, 0)


MOVES = {  # optimizer, weight decay, decay of the averaged weights, precision
    "supervised": (*SGD, "float32"),
    "fixmatch": (*SGD, "float32"),
    "unimatch": (*SGD, "float32"),
    "prevmatch": (*SGD, "float16"),
    "semiovs-unimatch": (*SGD, "float16"),
    "semiovs-prevmatch": (*SGD, "float16"),
    "unimatch-v2": ("adamw", 0.01, 0.996, "float32"),
    "semivl": ("adamw", 0.01, 0, "float32"),
    "semiovs-semivl": ("adamw", 0.01, 0, "float32"),
    "classmix": ("sgd", 5e-4, 0.99, "float32"),
}


ENCODER = {
    ("semivl", "voc"): 0.01,
    ("semivl", "cityscapes"): 0.1,
    ("semivl", "coco"): 0.001,
    ("semivl", "ade20k"): 0.001,
    ("semiovs-semivl", "voc"): 0.01,
}
"""The encoder's rate over the base rate, where it is not 1."""


OHEM = ("supervised", "fixmatch", "unimatch", "prevmatch", "unimatch-v2")
"""Presets that mine hard pixels, all of them on Cityscapes alone."""


@pytest.mark.parametrize(("name", "dataset"), IN_PAPERS)
def test_weights_move_as_published(name: str, dataset: str) -> None:
    found = variant(name, dataset)
    moves = (found.optimizer, found.weight_decay, found.ema_decay, found.precision)
    assert moves == MOVES[name]
    assert found.encoder_multiplier == ENCODER.get((name, dataset), 1)
    assert (found.layer_decay, found.clip_norm, found.freeze_encoder) == (1, None, False)
    loss = found.supervised_loss
    mines = dataset == "cityscapes" and name in OHEM
    assert loss.name == ("ohem" if mines else "cross_entropy")
    assert not mines or loss.config.model_dump()["threshold"] == 0.7


Keys = dict[str, Any]


ALWAYS: Keys = {"on": "unlabeled", "weight": 1, "schedule": "constant"}


STUDENT: Keys = {**ALWAYS, "name": "student", "threshold": 0.95, "mode": "pixelwise"}


EVERY_PIXEL: Keys = {**STUDENT, "threshold": 0}


EMA: Keys = {**STUDENT, "name": "ema"}


PREVIOUS: Keys = {
    **{**STUDENT, "name": "previous", "threshold": 0.9, "schedule": "triangle"},
    **{"keep": 8, "members": 3, "first_epoch": 0, "after": "best"},
}


LATE: Keys = {**PREVIOUS, "keep": 5, "first_epoch": 5}


FADING: Keys = {**ALWAYS, "weight": 0.1, "schedule": "linear_down"}


GUIDANCE: Keys = {**FADING, "name": "guidance", "threshold": 0.9}


SED: Keys = {
    **{**ALWAYS, "name": "stored", "labeler": "sed", "on": "ood"},
    **{"confidence": "one", "student_threshold": 0.95},
}


def averaged(keys: Keys, images: int) -> Keys:
    return {**keys, "mode": "pixelavg", "pixelavg_images": images}


SOURCES: dict[tuple[str, str], list[Keys]] = {
    ("supervised", "*"): [],
    ("fixmatch", "*"): [STUDENT],
    ("fixmatch", "cityscapes"): [EVERY_PIXEL],
    ("unimatch", "*"): [STUDENT],
    ("unimatch", "cityscapes"): [EVERY_PIXEL],
    ("prevmatch", "*"): [STUDENT, PREVIOUS],
    ("prevmatch", "cityscapes"): [EVERY_PIXEL, averaged(PREVIOUS, images=4)],
    ("prevmatch", "coco"): [STUDENT, LATE],
    ("prevmatch", "ade20k"): [STUDENT, LATE],
    ("unimatch-v2", "*"): [EMA],
    ("semivl", "*"): [STUDENT, GUIDANCE],
    ("semivl", "cityscapes"): [averaged(STUDENT, images=1), GUIDANCE],
    ("semiovs-unimatch", "*"): [STUDENT, SED],
    ("semiovs-prevmatch", "*"): [STUDENT, PREVIOUS, SED],
    ("semiovs-semivl", "*"): [STUDENT, GUIDANCE, {**SED, "weight": 0.5}],
    ("classmix", "*"): [{**EMA, "threshold": 0.968, "mode": "batchratio"}],
}
"""Of a dataset, or of all others."""


@pytest.mark.parametrize(("name", "dataset"), IN_PAPERS)
def test_label_sources_are_the_published_ones(name: str, dataset: str) -> None:
    found = variant(name, dataset)
    expected = SOURCES.get((name, dataset), SOURCES[name, "*"])
    for choice, keys in zip(found.label_sources, expected, strict=True):
        own = {"name": choice.name, **choice.config.model_dump()}
        assert {key: own[key] for key in keys} == keys
    has_selves = any(keys["name"] == "previous" for keys in expected)
    assert found.validate_every == ("epoch" if has_selves else None)


@pytest.mark.parametrize(
    ("name", "dataset", "short_side_px"),
    [
        ("semivl", "voc", 512),
        ("semivl", "ade20k", 512),
        ("semivl", "coco", None),
        ("semivl", "cityscapes", None),
        ("semiovs-semivl", "voc", 512),
        ("unimatch", "voc", None),
    ],
)
def test_semivl_scales_the_short_side_where_its_code_does(
    name: str, dataset: str, short_side_px: int | None
) -> None:
    assert variant(name, dataset).short_side_px == short_side_px


def test_classmix_mirrors_nothing_and_all_others_do() -> None:
    assert {name for name, dataset in EACH_DATASET if not variant(name, dataset).mirror} == {
        "classmix"
    }
