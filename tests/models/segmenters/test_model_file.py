"""Model files: what they say, that they are enough to predict, and how broken ones are refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import ConfigError, StorageError, WeightsError
from stages.models.clip.clip import untrained_tower
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.description import (
    HEADER_KEY,
    ModelDescription,
    read_description,
)
from stages.models.segmenters.inference import pixel_scores
from stages.models.segmenters.model_file import load_model_file, save_model_file
from stages.models.segmenters.normalization import IMAGENET, Normalization
from stages.models.segmenters.predictor import Predictor
from stages.models.segmenters.protocol import WHOLE_IMAGE, Protocol
from tests.file_limits import files_limited_to

BuildModel = Callable[..., ModelBuilder]
Describe = Callable[..., ModelDescription]
Read = Callable[[Path], dict[str, Any]]
Rewrite = Callable[[Path, dict[str, str] | None], None]
CPU = torch.device("cpu")


def noise(height: int = 40, width: int = 57) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


LOADING = """
import sys
from pathlib import Path
import torch
from stages.models.segmenters.model_file import load_model_file
folder = Path(sys.argv[1])
image = torch.load(folder / "image.pt")
for path in folder.glob("*.safetensors"):
    predictor = load_model_file(path, torch.device("cpu"))
    torch.save(predictor.label(image), path.with_suffix(".pt"))
"""


def test_a_file_alone_predicts_the_same_in_another_process(
    model: BuildModel,
    tiny_models: Callable[[Path], dict[str, dict[str, object]]],
    clip_folder: Path,
    classes: Vocabulary,
    images: Callable[..., Tensor],
    tmp_path: Path,
    described: Describe,
    windows: Protocol,
) -> None:
    """Every network, after all files that it was built from are gone."""
    clip, files, elsewhere = tmp_path / "clip", tmp_path / "files", tmp_path / "empty"
    shutil.copytree(clip_folder, clip)
    elsewhere.mkdir()
    files.mkdir()
    keys = {name: (name, own) for name, own in tiny_models(clip).items()}
    semivl: dict[str, object] = {**keys["semivl"][1], "text": "concept-avg"}
    stem = {"conv_stem": True, "conv_stem_weights": None, "clip_normalization": True}
    keys["semivl with a stem"] = ("semivl", {**semivl, **stem})
    encoder = model("unet", encoder="resnet18", encoder_weights=None).build(classes).encoder
    save_file(encoder.state_dict(), clip / "encoder.safetensors")
    weights: dict[str, object] = {
        "encoder": "resnet18",
        "encoder_weights": str(clip / "encoder.safetensors"),
    }
    keys["unet of a file"] = ("unet", weights)
    keys["small_unet of the sandbox"] = ("small_unet", {})
    expected = {}
    image = noise()
    torch.save(image, files / "image.pt")
    for title, (name, own) in keys.items():
        builder = model(name, **own)
        torch.manual_seed(0)
        network = builder.build(classes)
        network.train()(images())  # so that running statistics are its own
        description = described(builder, classes, windows)
        save_model_file(files / f"{title}.safetensors", network.state_dict(), description)
        expected[title] = Predictor(network.eval(), CPU, windows).label(image)
    shutil.rmtree(clip)
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOADING, str(files)]
    subprocess.run(command, check=True, cwd=elsewhere, env=environment)
    for title, labels in expected.items():
        found = torch.load(files / f"{title}.pt")
        assert all(map(torch.equal, found, labels)), title


def test_a_description_comes_back_without_torch(
    path: Path, classes: Vocabulary, description_in: Read, windows: Protocol
) -> None:
    program = f"""
import sys
from pathlib import Path
from stages.models.segmenters.description import read_description
print(read_description(Path({str(path)!r})).to_json())
assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    values = description_in(path)
    assert json.loads(printed) == values
    found = read_description(path)
    assert found.format == 1
    assert found.model.plain() == {"name": "small_unet", "encoder_weights": None}
    assert found.vocabulary == classes
    assert found.protocol == windows
    assert found.normalization == IMAGENET
    assert found.training.depends_on == {"train.steps": 2, "inputs.labeled": "0123"}
    assert found.versions.keys() == {"maskmill", "torch"}
    assert "label_schemes" not in values["vocabulary"]


def test_equal_networks_and_descriptions_are_equal_bytes(
    path: Path, builder: ModelBuilder, classes: Vocabulary, described: Describe, windows: Protocol
) -> None:
    before = path.read_bytes()
    save_model_file(path, load_file(path), described(builder, classes, windows))
    assert path.read_bytes() == before


def test_the_file_decides_on_protocol_and_normalization(
    path: Path, description_in: Read, rewrite: Rewrite, windows: Protocol
) -> None:
    values = description_in(path)
    other = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    rewrite(path, {HEADER_KEY: json.dumps({**values, "normalization": other})})
    predictor = load_model_file(path, CPU)
    by = Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert (predictor.protocol, predictor.normalization) == (windows, by)
    with torch.inference_mode():
        expected = pixel_scores(predictor.network, noise(), windows, by)
        imagenet = pixel_scores(predictor.network, noise(), windows)
    assert not torch.allclose(expected, imagenet)
    mask, confidence = predictor.label(noise())
    assert torch.equal(confidence, expected.max(dim=0).values)
    assert mask.tolist() == predictor.predict(noise().permute(1, 2, 0).numpy()).tolist()
    assert load_model_file(path, CPU, protocol=WHOLE_IMAGE).protocol == WHOLE_IMAGE


def test_other_classes_are_refused(path: Path, classes: Vocabulary) -> None:
    load_model_file(path, CPU, vocabulary=classes)
    reverse = classes.model_copy(update={"classes": classes.classes[::-1]})
    with pytest.raises(WeightsError) as raised:
        load_model_file(path, CPU, vocabulary=reverse)
    assert str(raised.value) == (
        f"{path}: trained for the classes sky, road, car, dog, cat, not cat, dog, car, road, sky; "
        "set `vocabulary` to the one it was trained with, or name a model file that was trained "
        "for the classes of this run"
    )


def test_tensors_that_do_not_fit_are_an_error(path: Path, description_in: Read) -> None:
    values = description_in(path)
    save_file({"weight": torch.zeros(1)}, path, metadata={HEADER_KEY: json.dumps(values)})
    with pytest.raises(WeightsError) as raised:
        load_model_file(path, CPU)
    versions = ", ".join(f"{name} {number}" for name, number in values["versions"].items())
    stderr = str(raised.value)
    assert stderr.startswith(f"{path}: its tensors do not fit the network that it describes: Error")
    assert stderr.endswith(
        f"; install the versions that wrote the file ({versions}), or train again"
    )
    assert "\n" not in stderr


@pytest.mark.parametrize(
    ("network", "architecture", "reason"),
    [
        ({"name": "unet", "encoder": "tu-no_such"}, {}, "timm has no 'no_such'"),
        ({"name": "semivl"}, {}, "'clip'"),
        ({"name": "semivl"}, {"clip": {"embed_dim": 8, "vision_cfg": {"no": 1}}}, ""),
    ],
)
def test_a_network_that_cannot_be_built_is_an_error(
    network: dict[str, Any],
    architecture: dict[str, Any],
    reason: str,
    path: Path,
    description_in: Read,
    rewrite: Rewrite,
) -> None:
    changes = {"model": network, "architecture": architecture}
    rewrite(path, {HEADER_KEY: json.dumps({**description_in(path), **changes})})
    with pytest.raises(WeightsError) as raised:
        load_model_file(path, CPU)
    what = "the network that it describes cannot be built here: "
    assert f"{path}: {what}" in str(raised.value)
    assert reason in str(raised.value)
    assert "; install the versions that wrote the file" in str(raised.value)


def test_a_description_downloads_nothing() -> None:
    """An image side of timm could name weights on the hub."""
    vision = {"timm_model_name": "test_vit", "timm_model_pretrained": True}
    with pytest.raises(ConfigError, match="not of open_clip's own architectures"):
        untrained_tower({"embed_dim": 8, "vision_cfg": vision, "quick_gelu": False})


def test_a_full_disk_leaves_no_file(
    builder: ModelBuilder, classes: Vocabulary, tmp_path: Path, described: Describe
) -> None:
    path = tmp_path / "new" / "model.safetensors"
    weights, description = builder.build(classes).state_dict(), described(builder, classes)
    with files_limited_to(100), pytest.raises(StorageError, match=rf"{path}: .*free some space"):
        save_model_file(path, weights, description)
    assert list(path.parent.iterdir()) == []
