"""A checkpoint of a training as a labeler."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from PIL import Image
from safetensors.torch import load_file

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import WeightsError
from stages.models.segmenters.builders.small_unet import SmallUNetConfig, SmallUNetModel
from stages.models.segmenters.description import read_description
from stages.models.segmenters.inference import pixel_probabilities
from stages.models.segmenters.model_file import load_model_file, save_model_file
from stages.models.segmenters.normalization import normalize
from stages.models.segmenters.protocol import WHOLE_IMAGE, Protocol, SlidingWindow
from stages.pseudolabel.inputs import LabelerInput, batch_of
from stages.pseudolabel.labelers.segmenter import Segmenter, SegmenterConfig
from tests.trainings import training_folder

Call = Callable[..., CompletedProcess[str]]
BuildVocabulary = Callable[..., Vocabulary]
BuildSegmenter = Callable[..., Path]
NOT_SAFETENSORS = (
    "not a safetensors file, or a damaged one; if a training of yours wrote it, delete it and run "
    "`maskmill run train`; otherwise name the model.safetensors of a finished training"
)
MODEL = {"name": "small_unet", "encoder_weights": None}
CLASSES: dict[str, Any] = {"cat": ["cat"], "dog": ["dog"]}
CPU = torch.device("cpu")


def labeler(weights: Path, vocabulary: Vocabulary) -> Segmenter:
    return Segmenter(SegmenterConfig.model_validate({"weights": str(weights)}), vocabulary)


def test_labels_are_the_networks_over_the_whole_image(
    segmenter: BuildSegmenter, vocabulary: BuildVocabulary
) -> None:
    classes = vocabulary(**{f"class {number}": None for number in range(20)})
    pixels = np.random.default_rng(0).integers(0, 256, (30, 48, 3), np.uint8)
    built = labeler(segmenter(classes), classes)
    built.load(CPU)
    labels = built.label(batch_of([LabelerInput(pixels)], 48))
    network = SmallUNetModel(SmallUNetConfig(encoder_weights=None)).build(classes).eval()
    network.load_state_dict(load_file(segmenter(classes)))
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        confidence, mask = network(normalize(image)).softmax(1)[0].max(0)
    assert len(mask.unique()) > 1
    assert torch.equal(labels.mask[0, :30], mask)
    torch.testing.assert_close(labels.confidence[0, :30], confidence, atol=1e-5, rtol=0)
    assert (labels.mask[0, 30:] == 255).all()


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("flip", [False, True])
def test_labels_are_what_evaluate_predicts_by_the_files_protocol(
    average: Literal["probabilities", "logits"],
    flip: bool,
    segmenter: BuildSegmenter,
    vocabulary: BuildVocabulary,
) -> None:
    classes = vocabulary(**{f"class {number}": None for number in range(20)})
    window = SlidingWindow(side_px=16, stride_px=8, average=average)
    path = segmenter(classes, Protocol(sliding_window=window, flip=flip))
    pixels = np.random.default_rng(0).integers(0, 256, (30, 48, 3), np.uint8)
    built = labeler(path, classes)
    built.load(CPU)
    labels = built.label(batch_of([LabelerInput(pixels)], 48))
    evaluated = load_model_file(path, CPU, vocabulary=classes)
    mask, confidence = labels.mask[0, :30], labels.confidence[0, :30]
    assert np.array_equal(mask.numpy(), evaluated.predict(pixels))
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    with torch.inference_mode():
        every = pixel_probabilities(evaluated.network, image, evaluated.protocol)
    torch.testing.assert_close(every.sum(0), torch.ones(30, 48), atol=1e-5, rtol=0)
    assert torch.equal(confidence, every.max(0).values)
    whole = load_model_file(path, CPU, protocol=WHOLE_IMAGE).predict(pixels)
    assert not np.array_equal(whole, mask.numpy())


def test_a_file_that_does_not_fit_is_refused_when_planned_and_when_loaded(
    segmenter: BuildSegmenter, vocabulary: BuildVocabulary, tmp_path: Path
) -> None:
    path = segmenter(vocabulary(**CLASSES))
    other = labeler(path, vocabulary(dog=["dog"], cat=["cat"]))
    for check in (other.vocabulary_facts, lambda: other.load(CPU)):
        with pytest.raises(WeightsError) as raised:
            check()
        assert str(raised.value) == (
            f"{path}: trained for the classes cat, dog, not dog, cat; "
            "set `vocabulary` to the one it was trained with, or name a model file "
            "that was trained for the classes of this run"
        )
    damaged = tmp_path / "model.safetensors"
    damaged.write_bytes(path.read_bytes()[:100])
    broken = labeler(damaged, vocabulary(**CLASSES))
    for check in (broken.weights_facts, lambda: broken.load(CPU)):
        with pytest.raises(WeightsError) as raised:
            check()
        assert str(raised.value) == f"{damaged}: {NOT_SAFETENSORS}"


def test_what_a_training_ended_with_labels_in_another_run(
    maskmill: Call,
    vocabulary: BuildVocabulary,
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
    tmp_path: Path,
    data: Path,
) -> None:
    """Offline self-training; another file makes its labels stale."""
    variants: dict[str, Any] = {"plain": {}}
    common = {"model": MODEL, "perturbation": "unimatch", "crop_px": 32, "device": "cpu"}
    lengths = {"steps": 2, "batch_size": 2, "checkpoint_every": 2, "log_every": 1}
    first = {**tiny, "run": "first", "train": {**common, **lengths, "variants": variants}}
    labelers = {"files": {"name": "files"}}
    first["pseudolabel"] = {"size_px": 32, "labelers": labelers}
    done = maskmill("run", "train", "--config", write_config(first))
    assert done.returncode == 0, done.stderr
    weights = training_folder(tmp_path / "workspace", "plain", "first") / "model.safetensors"
    own = {"name": "segmenter", "weights": str(weights)}
    second = {**tiny, "pseudolabel": {"size_px": 32, "labelers": {"own": own}}}
    done = maskmill("run", "--config", write_config(second))
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(tmp_path / "workspace/manifests/tiny/pseudo_labels")
    images = pd.read_parquet(tmp_path / "workspace/manifests/tiny/images").set_index("row")
    shapes = vocabulary(ground=None, disc=None, box=None)
    network = SmallUNetModel(SmallUNetConfig(encoder_weights=None)).build(shapes).eval()
    network.load_state_dict(load_file(weights))
    for row in rows.to_dict("records"):
        masks: Any = zarr.open_group(tmp_path / "workspace" / row["store"], mode="r")["mask"]
        with Image.open(str(images.loc[row["row"], "uri"])) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
        with torch.inference_mode():
            logits = network(normalize(pixels.permute(2, 0, 1)[None].float() / 255))
        assert np.array_equal(masks[row["row"], :24], logits[0].argmax(0).numpy())
    assert "nothing to do" in maskmill("run", "--config", write_config(second)).stderr
    tensors = {name: 2 * tensor for name, tensor in load_file(weights).items()}
    save_model_file(weights, tensors, read_description(weights))
    printed = maskmill("status", "--config", write_config(second)).stdout
    assert "pseudolabel.labelers.own.weights" in printed
    weights.write_bytes(b"another")
    done = maskmill("status", "--config", write_config(second))
    assert done.returncode == 1
    assert done.stderr == f"error: pseudolabel.labelers.own: {weights}: {NOT_SAFETENSORS}\n"
    weights.unlink()
    done = maskmill("status", "--config", write_config(second))
    assert done.returncode == 1
    assert done.stderr == (
        f"error: pseudolabel.labelers.own: {weights}: there is no such file; "
        "train it, or name the model.safetensors of a training that is done\n"
    )


def test_the_key_model_is_refused_with_a_reason(
    maskmill: Call, tiny: dict[str, Any], write_config: Callable[..., Path]
) -> None:
    own = {"name": "segmenter", "model": MODEL, "weights": "model.safetensors"}
    tiny["pseudolabel"] = {"size_px": 32, "labelers": {"own": own}}
    config = write_config(tiny)
    done = maskmill("status", "--config", config)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {config}: pseudolabel.labelers.own.model: unknown key; "
        "remove it: the model file says which network was trained\n"
    )
