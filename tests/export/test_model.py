"""Exported networks give the results of the network, and ONNX files predict as model files do."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from pipeline.config.components import Choice
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import WeightsError
from stages.export.model.parity import compare
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.description import HEADER_KEY, ModelDescription, read_description
from stages.models.segmenters.model_file import load_model_file, save_model_file
from stages.models.segmenters.protocol import WHOLE_IMAGE
from tests.conftest import VOCABULARY
from tests.models.segmenters.conftest import TINY, named
from tests.predict.conftest import picture, write_model

Maskmill = Callable[..., CompletedProcess[str]]
CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


def write(path: Path, name: str) -> Path:
    """A model file of a tiny network with random weights."""
    builder = named(name, **TINY[name])
    vocabulary = Vocabulary.model_validate(VOCABULARY)
    choice: Choice[ModelBuilder] = Choice(name, type(builder), builder.config)
    torch.manual_seed(0)
    weights = builder.build(vocabulary).state_dict()
    save_model_file(
        path, weights, ModelDescription.of_training(choice, vocabulary, WHOLE_IMAGE, {})
    )
    return path


@pytest.fixture
def export(maskmill: Maskmill, tmp_path: Path) -> Callable[..., CompletedProcess[str]]:
    def call(model: Path, to: str, *more: str) -> CompletedProcess[str]:
        out = tmp_path / "out"
        return maskmill("export", "model", "--model", model, "--to", to, "--out", out, *more)

    return call


@pytest.mark.parametrize(
    "name", ["small_unet", "deeplabv3plus", pytest.param("dpt", marks=pytest.mark.slow)]
)
def test_graphs_are_the_network(
    name: str, export: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    """On two sizes each, which `compare` in the command bounds by 1e-4; here once more."""
    pytest.importorskip("onnxruntime")
    model = write(tmp_path / "model.safetensors", name)
    done = export(model, "onnx,torchscript,safetensors", "--size", "64x96")
    assert done.returncode == 0, done.stderr
    is_fixed = "it takes only images of 96 x 64 px" in done.stderr
    network = load_model_file(model, CPU).network
    sizes = [(64, 96)] if is_fixed else [(64, 96), (96, 64), (33, 50)]
    onnx = load_model_file(tmp_path / "out/model.onnx", CPU).network
    assert compare(network, onnx, sizes).difference < 1e-4
    script = torch.jit.load(str(tmp_path / "out/model.ts"))  # type: ignore[no-untyped-call]
    assert compare(network, script, [(64, 96)]).difference < 1e-4
    copied = load_model_file(tmp_path / "out/model.safetensors", CPU).network
    assert compare(network, copied, [(64, 96)]).difference == 0
    if is_fixed:
        with pytest.raises(WeightsError, match="it takes no images of 50 x 33 px"):
            onnx(torch.zeros(1, 3, 33, 50))


def test_an_onnx_file_predicts_the_same_masks(
    export: Callable[..., CompletedProcess[str]], maskmill: Maskmill, tmp_path: Path
) -> None:
    """By the protocol of the model file: sliding windows."""
    pytest.importorskip("onnxruntime")
    model = write_model(tmp_path / "model.safetensors")
    assert export(model, "onnx").returncode == 0
    onnx = tmp_path / "out/model.onnx"
    assert read_description(onnx) == read_description(model)
    (tmp_path / "new").mkdir()
    for seed in range(3):
        picture(seed, (50 + seed, 37)).save(tmp_path / f"new/{seed}.png")
    for file, out in ((model, "first"), (onnx, "second")):
        done = maskmill("predict", tmp_path / "new", "--model", file, "--out", tmp_path / out)
        assert done.returncode == 0, done.stderr
    for seed in range(3):
        with (
            Image.open(tmp_path / f"first/masks/{seed}.png") as one,
            Image.open(tmp_path / f"second/masks/{seed}.png") as other,
        ):
            assert np.array_equal(np.array(one), np.array(other))


def test_the_card_says_what_is_needed_to_use_the_files(
    export: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    done = export(write_model(tmp_path / "model.safetensors"), "torchscript,safetensors")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out/README.md").read_text()
    assert card.startswith("---\nlibrary_name: maskmill\npipeline_tag: image-segmentation\n")
    assert "minus mean [0.485, 0.456, 0.406]" in card
    assert "`model.ts`: largest difference of logits" in card
    assert "--model model.safetensors" in card
    with safe_open(tmp_path / "out/model.safetensors", "pt") as file:
        assert HEADER_KEY in file.metadata()
    again = export(tmp_path / "model.safetensors", "torchscript,safetensors")
    assert "nothing to do, it was exported before" in again.stdout
    other = export(tmp_path / "model.safetensors", "torchscript")
    assert (other.returncode, len(other.stderr.splitlines())) == (1, 1)


def test_a_graph_that_differs_is_refused() -> None:
    network = torch.nn.Conv2d(3, 2, 1)
    wrong = torch.nn.Conv2d(3, 2, 1)
    with pytest.raises(WeightsError, match="what was exported differs from the network"):
        compare(network, wrong, [(4, 4)])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it has no description of a network"),
        (b"\x08", "not an ONNX file, or a damaged one"),
        (b"<html>", "not an ONNX file, or a damaged one"),
    ],
)
def test_a_file_that_is_none_of_ours_is_one_line(
    content: bytes, text: str, maskmill: Maskmill, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    picture(0).save(tmp_path / "a.png")
    done = maskmill("predict", tmp_path / "a.png", "--model", path, "--out", tmp_path / "out")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert text in done.stderr


def test_weights_in_another_file_and_strange_operators_are_refused(
    export: Callable[..., CompletedProcess[str]], maskmill: Maskmill, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    assert export(write_model(tmp_path / "model.safetensors"), "onnx").returncode == 0
    picture(0).save(tmp_path / "a.png")
    for number, text in enumerate(("another file", "Strange")):
        model = onnx.load(str(tmp_path / "out/model.onnx"))
        if number == 0:
            first = model.graph.initializer[0]
            first.ClearField("raw_data")
            first.data_location = onnx.TensorProto.EXTERNAL
            entry = first.external_data.add()
            entry.key, entry.value = "location", "/etc/passwd"
        else:
            model.graph.node[0].op_type, model.graph.node[0].domain = "Strange", "evil"
        path = tmp_path / f"hostile{number}.onnx"
        path.write_bytes(model.SerializeToString())
        done = maskmill("predict", tmp_path / "a.png", "--model", path, "--out", tmp_path / "p")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert text in done.stderr


def test_nothing_is_pushed_by_strangers(
    export: Callable[..., CompletedProcess[str]],
    maskmill: Maskmill,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    assert maskmill("export", "push", tmp_path, "--repo", "a/b").returncode == 1
    assert export(write_model(tmp_path / "model.safetensors"), "safetensors").returncode == 0
    done = maskmill("export", "push", tmp_path / "out", "--repo", "a/b")
    assert "nobody is logged in to the hub; run `hf auth login`" in done.stderr
