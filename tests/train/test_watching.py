import json
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from pipeline.config.vocabulary import Vocabulary
from pipeline.images import images
from pipeline.images.overlay import overlaid
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.networks.base import SegmentationNetwork, frozen_copy
from stages.train.data.batch import CropBatch, LabeledBatch, TrainBatch
from stages.train.data.random_numbers import StepRandom
from stages.train.records.example_pictures import ExamplePictures, label_metrics
from stages.train.records.reporter import StepRecord, TrainingReporter
from stages.train.records.tensorboard import EventFiles
from stages.train.records.training_log import TrainingLog
from stages.train.step.label_sources.ema import EmaSource
from stages.train.step.label_sources.stored import StoredConfig, StoredSource
from stages.train.step.parts import TrainingParts
from stages.train.step.perturbations.base import PerturbationConfig
from stages.train.step.perturbations.unimatch import UniMatch
from stages.train.step.schedule import StepPosition
from stages.train.step.step import training_step
from stages.train.step.supervised_losses.cross_entropy import CrossEntropyConfig, CrossEntropyLoss

Bytes = npt.NDArray[np.uint8]
BuildNetwork = Callable[[], SegmentationNetwork]
RandomBatch = Callable[..., TrainBatch]
PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[1:3] = [[255, 0, 0], [0, 0, 255]]
ROLES = {"ema_unlabeled": "unlabeled", "stored_ood": "ood", "student_ood": "ood"}


def labels(mask: object, confidence: object = None) -> PseudoLabels:
    classes = torch.tensor([mask])
    sure = (classes != 255).float() if confidence is None else torch.tensor([confidence]).float()
    return PseudoLabels(classes, sure)


def everywhere(height: int, width: int) -> Tensor:
    return torch.ones(1, height, width, dtype=torch.bool)


def labels_of(batch: TrainBatch) -> dict[str, PseudoLabels]:
    """Labels of each source, of different coverage."""
    generator = torch.Generator().manual_seed(5)
    found = {}
    for name, role in ROLES.items():
        shape = batch.crops[role].valid.shape
        logits = 2 * torch.randn(shape[0], 3, *shape[1:], generator=generator)
        found[name] = PseudoLabels.from_logits(logits).confident(0.8)
    found["stored_ood"] = batch.crops["ood"].stored["clip"]
    return found


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[ExamplePictures]:
    watching = ExamplePictures(
        EventFiles(tmp_path / "events", 0, pytest.fail), ROLES, PALETTE, pictures_every=10
    )
    yield watching
    watching.events.close()


def shown(folder: Path, name: str) -> list[tuple[int, Bytes]]:
    """Steps and pixels of the pictures under a name."""
    events = EventAccumulator(str(folder / "events"), size_guidance={"images": 0}).Reload()
    found = []
    for event in events.Images(name):
        with Image.open(BytesIO(event.encoded_image_string)) as image:
            found.append((event.step, np.array(image)))
    return found


def test_a_source_labels_where_it_has_a_class_and_a_weight() -> None:
    own = labels([[0, 1, 255, 2]], [[0.5, 0.0, 0.0, 1.0]])
    assert label_metrics({"stored_ood": own}, everywhere(1, 4)) == {"labeled/stored_ood": 0.5}


def test_padding_counts_nowhere() -> None:
    valid = torch.tensor([[[True, True, False, False]]])
    own, other = labels([[0, 255, 1, 1]]), labels([[0, 0, 2, 2]])
    found = label_metrics({"a": own, "b": other}, valid)
    assert found == {"labeled/a": 0.5, "labeled/b": 1.0, "agreement/a/b": 1.0}


def test_sources_agree_where_both_label_and_say_the_same() -> None:
    first = labels([[0, 1, 2, 2, 255, 1]])
    second = labels([[0, 2, 2, 255, 1, 1]], [[1, 1, 1, 0, 1, 0]])
    third = labels([[0, 1, 2, 255, 255, 255]])
    found = label_metrics({"a": first, "b": second, "c": third}, everywhere(1, 6))
    expected = {"labeled/a": 5 / 6, "labeled/b": 4 / 6, "labeled/c": 3 / 6}
    expected |= {"agreement/a/b": 2 / 3, "agreement/a/c": 1.0, "agreement/b/c": 2 / 3}
    assert found == pytest.approx(expected)


def test_what_no_two_sources_label_has_no_agreement() -> None:
    found = label_metrics({"a": labels([[0, 255]]), "b": labels([[255, 0]])}, everywhere(1, 2))
    assert found == {"labeled/a": 0.5, "labeled/b": 0.5}
    assert label_metrics({}, everywhere(1, 2)) == {}
    assert label_metrics({"a": labels([[0, 0]])}, ~everywhere(1, 2)) == {}


def test_only_sources_of_the_same_images_are_compared(
    watching: ExamplePictures, random_batch: RandomBatch
) -> None:
    batch = random_batch(["unlabeled", "ood"])
    own = labels_of(batch)
    found = watching.label_metrics(batch, own)
    assert {*found} == {*(f"labeled/{name}" for name in own), "agreement/stored_ood/student_ood"}
    valid = batch.crops["ood"].valid
    both = {name: own[name] for name in ("stored_ood", "student_ood")}
    assert {name: found[name] for name in label_metrics(both, valid)} == label_metrics(both, valid)


def test_pictures_are_due_at_first_and_now_and_then(watching: ExamplePictures) -> None:
    assert [step for step in range(1, 31) if watching.is_due(step)] == [1, 10, 20, 30]


def test_a_picture_shows_the_image_every_label_and_the_student(
    watching: ExamplePictures, pixel_network: BuildNetwork, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8))
    shown_pixels = pixels.float() / 255
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    valid[1, 4:] = False
    mask = torch.from_numpy(rng.choice([0, 1, 2, 255], (2, 8, 8)))
    own = PseudoLabels(mask, ((mask != 255) & (mask != 2)).float())
    crops = CropBatch(shown_pixels, valid, {})
    draws = StepRandom(0, 0, range(2), 2)
    batch = TrainBatch(LabeledBatch(shown_pixels, mask), {"ood": crops}, draws)
    network = pixel_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    single = ExamplePictures(watching.events, {"stored_ood": "ood"}, PALETTE, 10)
    single.draw(7, batch, {"stored_ood": own}, network)
    single.events.flush()
    assert network.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

    with torch.no_grad():
        student = network.eval()(crops.weak).argmax(dim=1)
    hidden = mask.masked_fill((mask == 2) | ~valid, 255)
    for role, masks in (("ood", [hidden, student]), ("labeled", [mask, student])):
        ((step, sheet),) = shown(tmp_path, f"examples/{role}")
        assert step == 7
        for row in range(2):
            image = images.fit(pixels[row].permute(1, 2, 0).numpy(), 192)
            cells = [image] + [
                overlaid(image, each[row].numpy().astype(np.uint8), PALETTE) for each in masks
            ]
            top = 18 + row * (192 + 18 + 4)
            for column, cell in enumerate(cells):
                left = column * (192 + 4)
                assert np.array_equal(sheet[top : top + 192, left : left + 192], cell)
                caption = sheet[top - 18 : top, left : left + 192]
                assert caption.min() < 100 < caption.max()


def test_labels_of_a_real_step_are_watched(
    pixel_network: BuildNetwork,
    random_batch: RandomBatch,
    tmp_path: Path,
    vocabulary: Vocabulary,
) -> None:
    """Labels as label sources give them, of a batch as the loop has it."""
    batch = random_batch(["unlabeled", "ood"])
    network, ema = pixel_network(), frozen_copy(pixel_network())
    sources: list[Any] = [
        EmaSource(EmaSource.Config(threshold=0.4)),
        StoredSource(StoredConfig(labeler="clip", on="ood")),
    ]
    loss = CrossEntropyLoss(CrossEntropyConfig())
    unimatch = UniMatch(PerturbationConfig(), vocabulary)
    parts = TrainingParts(network, ema, unimatch, sources, loss)
    own = training_step(parts, batch, StepPosition(0, 10, 5)).labels
    roles = {source.name: source.config.on for source in sources}
    watching = ExamplePictures(
        EventFiles(tmp_path / "events", 0, pytest.fail), roles, PALETTE, pictures_every=1
    )
    log = TrainingLog(tmp_path / "log.jsonl", writes=True)
    reporter = TrainingReporter(log, lambda done, values: None, 1, 10, watching)
    reporter.step(1, StepRecord({"loss/total": torch.tensor(0.5)}, 0.1, batch, own), network)
    reporter.validation(1, {"miou": 0.25})
    watching.events.close()
    found = watching.label_metrics(batch, own)
    assert {*found} == {f"labeled/{source.name}" for source in sources}
    assert all(0 < value <= 1 for value in found.values())
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    written = {**found, "loss/total": 0.5, "learning_rate": 0.1, "val/miou": 0.25}
    for name, value in written.items():
        assert [event.value for event in events.Scalars(name)] == pytest.approx([value])
    assert {*json.loads(log.lines[0])} == {"step", "loss/total", "learning_rate", *found}
    assert set(events.Tags()["images"]) == {
        f"examples/{role}" for role in ("labeled", *batch.roles)
    }
