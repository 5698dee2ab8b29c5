"""A checkpoint of a training as a labeler."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import WeightsError
from stages.models.segmenters.builders.small_unet import SmallUNetConfig, SmallUNetModel
from stages.models.segmenters.normalization import normalize
from stages.pseudolabel.inputs import LabelerInput, batch_of
from stages.pseudolabel.labelers.segmenter import Segmenter, SegmenterConfig
from tests.trainings import training_folder

Call = Callable[..., CompletedProcess[str]]
BuildVocabulary = Callable[..., Vocabulary]
MODEL = {"name": "small_unet", "encoder_weights": None}
CLASSES: dict[str, Any] = {"cat": ["cat"], "dog": ["dog"]}
CPU = torch.device("cpu")


def labeler(weights: Path, vocabulary: Vocabulary, **model: Any) -> Segmenter:
    keys = {"model": {**MODEL, **model}, "weights": str(weights)}
    return Segmenter(SegmenterConfig.model_validate(keys), vocabulary)


def test_labels_are_the_networks_over_the_whole_image(
    segmenter: Callable[[Vocabulary], Path], vocabulary: BuildVocabulary
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


def test_a_file_that_does_not_fit_is_one_line(
    segmenter: Callable[[Vocabulary], Path], vocabulary: BuildVocabulary, tmp_path: Path
) -> None:
    classes = vocabulary(**CLASSES)
    path = segmenter(classes)
    fix = "set `model` and `vocabulary` to what it was trained by, or train it"
    with pytest.raises(WeightsError) as raised:
        labeler(path, vocabulary(dog=["dog"], cat=["cat"])).load(CPU)
    assert str(raised.value) == f"{path}: trained for the classes cat, dog, not dog, cat; {fix}"
    other = {"name": "deeplabv3plus", "encoder": "resnet18"}
    with pytest.raises(WeightsError) as raised:
        labeler(path, classes, **other).load(CPU)
    assert str(raised.value).startswith(f"{path}: cannot load the weights: Error")
    damaged = tmp_path / "model.safetensors"
    damaged.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError) as raised:
        labeler(damaged, classes).load(CPU)
    assert str(raised.value).endswith(fix)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "about",
    ["{", "", "3", "[" * 9999, '{"classes": 3}', '{"classes": [1, 2]}', '{"classes": null}'],
)
def test_a_header_that_says_nonsense_is_one_line(
    about: str, segmenter: Callable[[Vocabulary], Path], vocabulary: BuildVocabulary
) -> None:
    classes = vocabulary(**CLASSES)
    path = segmenter(classes)
    save_file(load_file(path), path, metadata={"about": about})
    with pytest.raises(WeightsError) as raised:
        labeler(path, classes).load(CPU)
    assert str(raised.value) == (
        f"{path}: cannot load the weights: `about` in its header is damaged; "
        "set `model` and `vocabulary` to what it was trained by, or train it"
    )


def test_a_file_that_another_tool_wrote_says_nothing_of_classes(
    segmenter: Callable[[Vocabulary], Path], vocabulary: BuildVocabulary
) -> None:
    path = segmenter(vocabulary(**CLASSES))
    save_file(load_file(path), path, metadata={"format": "pt"})
    labeler(path, vocabulary(dog=["dog"], cat=["cat"])).load(CPU)


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
    own = {"name": "segmenter", "model": MODEL, "weights": str(weights)}
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
    weights.write_bytes(b"another")
    told = maskmill("status", "--config", write_config(second)).stdout
    assert "pseudolabel.labelers.own.weights" in told
    weights.unlink()
    done = maskmill("status", "--config", write_config(second))
    assert done.returncode == 1
    assert done.stderr == (
        f"error: pseudolabel.labelers.own: weights: {weights}: there is no such file; "
        "train it, or name the model.safetensors of a training that is done\n"
    )
