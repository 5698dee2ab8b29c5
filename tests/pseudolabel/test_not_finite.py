"""Weights and scores that are NaN or infinite are errors that name the tensor or the image."""

import ast
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import MaskmillError
from pipeline.images.images import content_id
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.finite import NotFiniteError
from stages.pseudolabel.labelers.base import ImageBatch, Labeler
from stages.pseudolabel.labelers.dense_clip import DenseClip
from stages.pseudolabel.labelers.files import Files
from stages.pseudolabel.labelers.hf import Hf
from stages.pseudolabel.labelers.sed import Sed
from stages.pseudolabel.labelers.segmenter import Segmenter

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
CLASSES = {"sky": ["sky"], "car": ["car"]}
WINDOW = {"window_px": 32, "stride_px": 16}
Make = Callable[..., Vocabulary]
READERS = {"load_file", "load", "deserialize", "safe_open", "load_state_dict", "from_pretrained"}
"""Functions of the field's libraries that read weights."""


def poison(path: Path, value: float, name: str | None = None) -> str:
    """Replaces a value of a tensor in a file; returns the tensor's name."""
    tensors = load_file(path)
    name = name or next(key for key in sorted(tensors) if tensors[key].is_floating_point())
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path)
    return name


def error_of(labeler: Labeler) -> str:
    with pytest.raises(MaskmillError) as error:
        labeler.load(CPU)
    return str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_clip_with_a_value_that_is_none_is_refused(
    value: float, clip_folder: Callable[[str], Path], vocabulary: Make, tmp_path: Path
) -> None:
    folder = shutil.copytree(clip_folder("vit"), tmp_path / "clip")
    name = poison(folder / "open_clip_model.safetensors", value)
    config = DenseClip.Config.model_validate({"model": f"local-dir:{folder}", **WINDOW})
    message = error_of(DenseClip(config, vocabulary(**CLASSES)))
    assert f"{name} has values that are NaN or infinite" in message


def test_a_value_too_large_for_the_precision_is_refused(
    clip_folder: Callable[[str], Path], vocabulary: Make, tmp_path: Path
) -> None:
    folder = shutil.copytree(clip_folder("vit"), tmp_path / "clip")
    name = poison(folder / "open_clip_model.safetensors", 1e5, "visual.proj")
    keys = {"model": f"local-dir:{folder}", "precision": "float16", **WINDOW}
    labeler = DenseClip(DenseClip.Config.model_validate(keys), vocabulary(**CLASSES))
    assert f"{name} has values that are NaN or infinite" in error_of(labeler)


def test_a_sed_with_a_value_that_is_none_is_refused(
    sed_checkpoint: Path, vocabulary: Make, tmp_path: Path
) -> None:
    content = torch.load(sed_checkpoint, weights_only=True)
    name = "sem_seg_head.predictor.clip_model.logit_scale"
    content["model"][name].fill_(float("nan"))
    weights = tmp_path / "sed.pth"
    torch.save(content, weights)
    keys = {"model": f"local-dir:{sed_checkpoint.parent}", "weights": str(weights), "input_px": 64}
    labeler = Sed(Sed.Config.model_validate(keys), vocabulary(**CLASSES))
    assert f"weights: {weights}: clip_model.logit_scale has values" in error_of(labeler)


def test_a_model_of_transformers_with_a_value_that_is_none_is_refused(
    hf_folder: Callable[[str], Path], vocabulary: Make, tmp_path: Path
) -> None:
    folder = shutil.copytree(hf_folder("clipseg"), tmp_path / "clipseg")
    name = poison(folder / "model.safetensors", float("nan"))
    labeler = Hf(Hf.Config.model_validate({"model": f"local-dir:{folder}"}), vocabulary(**CLASSES))
    assert f"{name} has values that are NaN or infinite" in error_of(labeler)


def test_a_segmenter_with_a_value_that_is_none_is_refused(
    segmenter: Callable[..., Path], vocabulary: Make, tmp_path: Path
) -> None:
    classes = vocabulary(**CLASSES)
    path = shutil.copy(segmenter(classes), tmp_path / "model.safetensors")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["classifier.bias"][0] = float("nan")
    save_file(tensors, path, metadata)
    labeler = Segmenter(Segmenter.Config.model_validate({"weights": str(path)}), classes)
    assert f"{path}: classifier.bias has values that are NaN or infinite" in error_of(labeler)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_scores_of_a_clip_that_are_none_are_an_error_in_every_precision(
    precision: str, clip_folder: Callable[[str], Path], vocabulary: Make
) -> None:
    """Also where masks or thresholds would hide them: a NaN is below every threshold."""
    keys = {"model": f"local-dir:{clip_folder('vit')}", "precision": precision, "threshold": 0.9}
    labeler = DenseClip(DenseClip.Config.model_validate({**keys, **WINDOW}), vocabulary(**CLASSES))
    labeler.load(CPU)
    labeler._clip.network.visual.proj.data.view(-1)[0] = float("inf")  # as an overflow on the way
    pixels = torch.randint(0, 256, (1, 3, 48, 48), dtype=torch.uint8)
    with pytest.raises(NotFiniteError, match="scores of the network are NaN or infinite"):
        labeler.label(ImageBatch(pixels, ((48, 48),)))


def test_confidences_that_are_none_are_an_error_of_any_labeler(vocabulary: Make) -> None:
    class Sick(Files):
        def label(self, images: ImageBatch) -> PseudoLabels:
            return PseudoLabels(torch.zeros(1, 8, 8).long(), torch.full((1, 8, 8), torch.nan))

    labeler = Sick(Files.Config(), vocabulary(**CLASSES))
    with pytest.raises(NotFiniteError):
        labeler(ImageBatch(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ((8, 8),)))


def test_the_image_is_named(
    tiny: dict[str, Any],
    clip_folder: Callable[[str], Path],
    write_config: Callable[..., Path],
    call: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """A network that overflows in float16 where an image is bright, in a batch with others."""
    folder = shutil.copytree(clip_folder("vit"), tmp_path / "clip")
    tensors = load_file(folder / "open_clip_model.safetensors")
    tensors["visual.conv1.weight"].fill_(300)
    save_file(tensors, folder / "open_clip_model.safetensors")
    data = Path(tiny["data"])
    mean = (128, 102, 77)
    for number, path in enumerate(sorted(data.glob("[lo]*/images/*.png"))):
        Image.new("RGB", (32, 24 + number), mean).save(path)
    bright = data / "ood/images/1.png"
    Image.new("RGB", (32, 24), "white").save(bright)
    clip = {"name": "dense_clip", "model": f"local-dir:{folder}", "precision": "float16", **WINDOW}
    for name in ("labeled", "val", "test", "unlabeled"):
        del tiny["ingest"]["sources"][name]
    done = call(
        "run", write_config({**tiny, "pseudolabel": {"size_px": 32, "labelers": {"c": clip}}})
    )
    assert done.returncode == 1
    where = f"pseudolabel.labelers.c: image {content_id(bright.read_bytes())}"
    assert f"{where}: " in done.stderr.splitlines()[-1]
    assert "scores of the network are NaN or infinite" in done.stderr.splitlines()[-1]


def test_every_reader_of_weights_passes_them_through_the_check() -> None:
    """A module that reads weights checks them, or has them from a module that does."""
    readers = set()
    for path in sorted((ROOT / "stages").rglob("*.py")):
        tree = ast.parse(path.read_text())
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] in {"safetensors", "timm", "open_clip"}
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                is_read = name in imported & READERS or name.endswith(".from_pretrained")
                if is_read or name in {"torch.load", "open_clip.create_model", "read_checkpoint"}:
                    readers.add(path)
    assert {path.name for path in readers} >= {"clip.py", "sam.py", "checkpoint.py"}
    unchecked = [
        str(path.relative_to(ROOT))
        for path in sorted(readers)
        if not {"finite_weights(", "not_finite("} & set(_calls(path.read_text()))
    ]
    assert unchecked == [
        "stages/models/checkpoint_file.py",  # its callers are readers too
        "stages/models/clip/file_settings.py",  # `clip.py` checks the network it gave them to
        "stages/models/plain_pickle.py",  # read by `checkpoint_file.py` only
    ]


def _calls(text: str) -> list[str]:
    return [f"{ast.unparse(n.func)}(" for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]
