"""Model files: a trained network in one file that describes itself."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.config import components
from pipeline.config.components import Choice
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import WeightsError
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.description import HEADER_KEY, ModelDescription, read_description
from stages.models.segmenters.model_file import load_model_file, save_model_file
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.models.segmenters.predictor import Predictor
from stages.models.segmenters.protocol import WHOLE_IMAGE, Protocol, SlidingWindow

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
WINDOWS = Protocol(sliding_window=SlidingWindow(side_px=32, stride_px=16), flip=True)
DELETE = (
    "if a training of yours wrote it, delete it and run `maskmill run train`; "
    "otherwise name the model.safetensors of a finished training"
)
NOT_SAFETENSORS = f"not a safetensors file, or a damaged one; {DELETE}"
DAMAGED = "the description in its header is damaged"
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def describe(model: ModelBuilder, classes: Vocabulary, protocol: Protocol) -> ModelDescription:
    choice = Choice(model.file_name(), type(model), model.config)
    return ModelDescription.of_training(choice, classes, protocol, {"steps": 2, "weights": None})


@pytest.fixture
def path(model: Callable[..., ModelBuilder], classes: Vocabulary, tmp_path: Path) -> Path:
    """A model file of `small_unet`."""
    torch.manual_seed(0)
    builder, path = model("small_unet", encoder_weights=None), tmp_path / "model.safetensors"
    weights = builder.build(classes).state_dict()
    save_model_file(path, weights, describe(builder, classes, WINDOWS))
    return path


def noise() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def in_empty_folder(program: str, folder: Path, *arguments: Path) -> None:
    folder.mkdir()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    subprocess.run(command, check=True, cwd=folder, env={**environment, "HOME": str(folder)})


@pytest.mark.parametrize("name", components.names("stages.models.segmenters.builders"))
def test_a_network_predicts_from_its_file_and_nothing_else(
    name: str,
    model: Callable[..., ModelBuilder],
    tiny_keys: Callable[[str], dict[str, Any]],
    classes: Vocabulary,
    tmp_path: Path,
) -> None:
    """In another process, without the files that the network was built from."""
    keys, folder = tiny_keys(name), tmp_path / "clip"
    if name == "semivl":
        shutil.copytree(keys["model"].removeprefix("local-dir:"), folder)
        keys["model"] = f"local-dir:{folder}"
    torch.manual_seed(0)
    builder = model(name, **keys)
    network = builder.build(classes)
    network.train()(torch.randn(2, 3, 32, 48))  # running statistics that are not the initial ones
    saved = tmp_path / "model.safetensors"
    save_model_file(saved, network.state_dict(), describe(builder, classes, WINDOWS))
    shutil.rmtree(folder, ignore_errors=True)
    mask, confidence = Predictor(network.eval(), CPU, WINDOWS).label(
        torch.from_numpy(noise()).permute(2, 0, 1)
    )
    np.save(tmp_path / "image.npy", noise())
    program = """
import sys
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import save_file
from stages.models.segmenters.model_file import load_model_file
torch.set_num_threads(int(sys.argv[4]))
predictor = load_model_file(Path(sys.argv[1]), torch.device("cpu"))
image = torch.from_numpy(np.load(sys.argv[2])).permute(2, 0, 1)
mask, confidence = predictor.label(image)
save_file({"mask": mask, "confidence": confidence}, sys.argv[3])
"""
    image, result = tmp_path / "image.npy", tmp_path / "result.safetensors"
    in_empty_folder(
        program, tmp_path / "empty", saved, image, result, Path(str(torch.get_num_threads()))
    )
    found = load_file(result)
    assert torch.equal(found["mask"], mask)
    assert torch.equal(found["confidence"], confidence)


def test_a_description_is_read_without_torch(path: Path, tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from stages.models.segmenters.description import read_description
assert read_description(Path(sys.argv[1])).vocabulary.class_names[1] == "road"
assert "torch" not in sys.modules
"""
    in_empty_folder(program, tmp_path / "empty", path)


def test_a_description_comes_back(
    path: Path, model: Callable[..., ModelBuilder], classes: Vocabulary
) -> None:
    expected = describe(model("small_unet", encoder_weights=None), classes, WINDOWS)
    assert read_description(path) == expected
    assert expected.training.depends_on == {"steps": 2, "weights": None}
    assert np.array_equal(read_description(path).vocabulary.palette, classes.palette)
    predictor = load_model_file(path, CPU, vocabulary=classes)
    assert predictor.protocol == WINDOWS
    assert load_model_file(path, CPU, protocol=WHOLE_IMAGE).protocol == WHOLE_IMAGE


def test_equal_networks_are_equal_bytes(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_model_file(other, load_file(path), read_description(path))
    assert other.read_bytes() == path.read_bytes()
    assert read_description(other).to_json() == read_description(path).to_json()


def error_of(path: Path, **keys: Any) -> str:
    """The error of loading a model file, less its path."""
    with pytest.raises(WeightsError) as raised:
        load_model_file(path, CPU, **keys)
    text = str(raised.value)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def header(values: object) -> bytes:
    text = values if isinstance(values, bytes) else json.dumps(values).encode()
    return len(text).to_bytes(8, "little") + text + bytes(4)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", NOT_SAFETENSORS),
        (b"not weights", NOT_SAFETENSORS),
        (b"\xff" * 8 + b"{}", NOT_SAFETENSORS),
        ((2**25).to_bytes(8, "little") + b"{}", NOT_SAFETENSORS),
        (header(b"{"), NOT_SAFETENSORS),
        (header(b"[" * 9999), NOT_SAFETENSORS),
        (header([]), NOT_SAFETENSORS),
        (
            header({"weight": ENTRY, "__metadata__": {"format": "pt"}}),
            "not a model file of Maskmill: its header has no description of a network; "
            "name the model.safetensors of a finished training",
        ),
        (
            header({"weight": ENTRY, "__metadata__": {"about": '{"classes": ["cat"]}'}}),
            "an earlier version of Maskmill wrote it, without a description of the network; "
            "delete it and run `maskmill run train` with the config of its training",
        ),
        (header({"__metadata__": {HEADER_KEY: 3}}), f"{DAMAGED}: not a text; {DELETE}"),
        (header({"__metadata__": {HEADER_KEY: "{"}}), f"{DAMAGED}: not valid JSON; {DELETE}"),
        (
            header({"__metadata__": {HEADER_KEY: '{"format": 2, "more": 3}'}}),
            "a newer version of Maskmill wrote it (format 2, this version reads 1); "
            "update Maskmill",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(content: bytes, error: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert error_of(path) == error
    with pytest.raises(WeightsError) as raised:
        read_description(path)
    assert str(raised.value) == f"{path}: {error}"


def edited(path: Path, **keys: Any) -> Path:
    """A model file with other keys in its description."""
    values = {**json.loads(read_description(path).to_json()), **keys}
    save_file(load_file(path), path, metadata={HEADER_KEY: json.dumps(values)})
    return path


def test_descriptions_of_another_form_are_refused(path: Path) -> None:
    versions = json.loads(read_description(path).to_json())["versions"]
    unknown = {"name": "segnet", "depth": 5}
    assert error_of(edited(path, model=unknown)) == (
        "this version of Maskmill has no network 'segnet'; "
        f"use Maskmill {versions['maskmill']}, which wrote the file"
    )


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"more": 3}, "unknown key more"),
        ({"model": {"name": "small_unet", "depth": 5}}, "unknown key model.depth"),
        ({"versions": 3}, "versions: Input should be an object"),
        ({"training": {"fingerprint": "0"}}, "training.depends_on: Field required"),
        (
            {"normalization": {"mean": [0, 0, 0], "std": [1, 0, 1]}},
            "normalization.std.1: Input should be greater than 0",
        ),
    ],
)
def test_a_damaged_description_is_refused_by_key(
    keys: dict[str, Any], reason: str, path: Path
) -> None:
    assert error_of(edited(path, **keys)) == f"{DAMAGED}: {reason}; {DELETE}"


def test_a_truncated_file_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    assert error_of(path) == NOT_SAFETENSORS
    path.write_bytes(path.read_bytes()[:100])
    assert error_of(path) == NOT_SAFETENSORS


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    fix = "train it, or name the model.safetensors of a training that is done"
    assert error_of(tmp_path / "model.safetensors") == f"there is no such file; {fix}"


def test_other_classes_are_refused(path: Path, classes: Vocabulary) -> None:
    reverse = classes.model_copy(update={"classes": classes.classes[::-1]})
    assert error_of(path, vocabulary=reverse) == (
        "trained for the classes sky, road, car, dog, cat, not cat, dog, car, road, sky; "
        "set `vocabulary` to the one it was trained with, or name a model file "
        "that was trained for the classes of this run"
    )


def test_a_network_that_does_not_fit_is_refused(
    path: Path, model: Callable[..., ModelBuilder], classes: Vocabulary
) -> None:
    description = read_description(path)
    written = ", ".join(f"{name} {number}" for name, number in description.versions.items())
    fix = f"install the versions that wrote the file ({written}), or train again"
    network: SegmentationNetwork = model("small_unet", encoder_weights=None).build(classes)
    (last, *_), tensors = list(network.state_dict())[::-1], load_file(path)
    del tensors[last]
    save_model_file(path, tensors, description)
    assert error_of(path) == (
        "its tensors do not fit the network that it describes: Error(s) in loading state_dict for "
        f'SmallUNet: Missing key(s) in state_dict: "{last}".; {fix}'
    )
    encoder = {"name": "unet", "encoder": "tu-no_such_encoder", "encoder_weights": None}
    text = error_of(edited(path, model=encoder))
    what, _, advice = text.rpartition("; install")
    assert what.startswith("the network that it describes cannot be built here: ")
    assert "no_such_encoder" in what
    assert f"install{advice}" == fix
