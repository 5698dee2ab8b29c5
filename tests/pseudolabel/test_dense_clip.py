import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from pipeline.config.components import Component, find, names
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import WeightsError
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.clip import clip_weights
from stages.models.clip.clip import load_clip
from stages.models.clip.clip_weights import ClipConfig
from stages.pseudolabel.labelers.base import ImageBatch
from stages.pseudolabel.labelers.dense_clip import DenseClip

CPU = torch.device("cpu")
CHECKPOINT = "open_clip_model.safetensors"
FETCH = "run `hf download timm/vit_base_patch16_clip_224.openai open_clip_model.safetensors"
ClipFolder = Callable[[str], Path]
BuildVocabulary = Callable[..., Vocabulary]


def config(**keys: Any) -> ClipConfig:
    return ClipConfig(**{"window_px": 32, "stride_px": 16, **keys})


def loaded(vocabulary: Vocabulary, **keys: Any) -> DenseClip:
    labeler = DenseClip(config(**keys), vocabulary)
    labeler.load(CPU)
    return labeler


def batch_of(*sizes: tuple[int, int], canvas: int = 64) -> ImageBatch:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.zeros(len(sizes), 3, canvas, canvas, dtype=torch.uint8)
    for image, (height, width) in zip(pixels, sizes, strict=True):
        noise = torch.randint(0, 256, (3, height, width), generator=generator)
        image[:, :height, :width] = noise.to(torch.uint8)
    return ImageBatch(pixels, sizes)


def only(labels: PseudoLabels, index: int) -> tuple[Tensor, Tensor]:
    return labels.mask[index], labels.confidence[index]


@pytest.mark.parametrize("tower", ["vit", "resnet", "convnext"])
@pytest.mark.parametrize("short_side_px", [None, 40])
def test_an_image_gets_the_same_label_in_any_batch(
    clip_folder: ClipFolder, vocabulary: BuildVocabulary, tower: str, short_side_px: int | None
) -> None:
    classes = vocabulary(cat=["cat"], dog=["dog", "puppy"], background_concepts=["sky"])
    keys = {"model": f"local-dir:{clip_folder(tower)}", "short_side_px": short_side_px}
    labeler = loaded(classes, batch_size=3, **keys)
    images = batch_of((64, 64), (20, 64), (64, 1), (33, 64))
    together = labeler.label(images)
    again = labeler.label(images)
    larger_forwards = loaded(classes, **keys).label(images)
    assert together.mask.shape == together.confidence.shape == (4, 64, 64)
    assert (together.mask.dtype, together.confidence.dtype) == (torch.int64, torch.float32)
    assert set(together.mask.flatten().tolist()) <= {0, 1, 255}
    assert torch.equal(together.mask, again.mask)
    assert torch.equal(together.confidence, again.confidence)
    assert torch.equal(together.mask, larger_forwards.mask)
    for index, (height, width) in enumerate(images.sizes):
        alone = labeler.label(ImageBatch(images.pixels[index : index + 1], ((height, width),)))
        mask, confidence = only(together, index)
        assert torch.equal(mask, alone.mask[0])
        torch.testing.assert_close(confidence, alone.confidence[0], atol=1e-5, rtol=0)
        outside = torch.ones(64, 64, dtype=torch.bool)
        outside[:height, :width] = False
        assert (mask[outside] == 255).all()
        assert (confidence[mask == 255] == 0).all()
        kept = confidence[mask != 255]
        assert ((kept >= 1 / 3) & (kept <= 1)).all()


@pytest.mark.parametrize("size", [(1, 64), (64, 1), (1, 1)])
@pytest.mark.parametrize("short_side_px", [None, 48])
def test_a_line_of_pixels_is_labeled(
    clip_folder: ClipFolder,
    vocabulary: BuildVocabulary,
    size: tuple[int, int],
    short_side_px: int | None,
) -> None:
    folder = clip_folder("vit")
    classes = vocabulary(cat=None, dog=None)
    labeler = loaded(classes, model=f"local-dir:{folder}", short_side_px=short_side_px)
    labels = labeler.label(batch_of(size))
    assert (labels.mask != 255).sum() == size[0] * size[1]
    assert (labels.mask[0, : size[0], : size[1]] < 2).all()


def test_a_single_class_wins_everywhere_for_certain(
    clip_folder: ClipFolder, vocabulary: BuildVocabulary
) -> None:
    labeler = loaded(vocabulary(cat=None), model=f"local-dir:{clip_folder('vit')}", threshold=1.0)
    labels = labeler.label(batch_of((64, 64)))
    assert torch.equal(labels.mask, torch.zeros(1, 64, 64, dtype=torch.int64))
    assert torch.equal(labels.confidence, torch.ones(1, 64, 64))


def test_two_hundred_classes(clip_folder: ClipFolder, vocabulary: BuildVocabulary) -> None:
    classes = vocabulary(**{f"class {number}": None for number in range(200)})
    labeler = loaded(classes, model=f"local-dir:{clip_folder('vit')}", logit_scale=100.0)
    labels = labeler.label(batch_of((64, 64), (64, 10)))
    found = labels.mask[labels.mask != 255]
    assert len(found) == 64 * 64 + 64 * 10
    assert int(found.max()) < 200
    assert len(set(found.tolist())) > 3


def test_improbable_pixels_are_ignored(
    clip_folder: ClipFolder, vocabulary: BuildVocabulary
) -> None:
    model = f"local-dir:{clip_folder('vit')}"
    classes = vocabulary(cat=None, dog=None, boat=None)
    everything = loaded(classes, model=model).label(batch_of((64, 50)))
    threshold = float(everything.confidence[:, :, :50].median())
    likely = loaded(classes, model=model, threshold=threshold).label(batch_of((64, 50)))
    kept = everything.confidence >= threshold
    assert 0.4 < kept[:, :, :50].float().mean() < 0.6
    assert torch.equal(likely.mask, everything.mask.where(kept, 255))
    assert torch.equal(likely.confidence, everything.confidence.where(kept, 0))


COLORS = {"coal": (0, 0, 0), "snow": (255, 255, 255), "rose": (230, 20, 40)}


@pytest.fixture(params=["vit", "resnet", "convnext"])
def color_clip(request: pytest.FixtureRequest, clip_folder: ClipFolder, tmp_path: Path) -> Path:
    """A CLIP folder whose text side names the colours as its image side sees them."""
    source = clip_folder(request.param)
    clip = load_clip(source, source / CHECKPOINT, window_px=32, device=CPU)
    windows = torch.tensor(list(COLORS.values()), dtype=torch.uint8)[..., None, None]
    seen = clip.dense_features(clip.normalize(windows).expand(-1, -1, 32, 32)).mean((2, 3))
    clip.network.text_projection.copy_(torch.eye(32))
    read = clip.network.encode_text(clip.tokenizer(list(COLORS)))
    # Each text like its own colour, and at right angles to the others.
    clip.network.text_projection.copy_(torch.linalg.pinv(read) @ torch.linalg.pinv(seen).T)
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    save_file(clip.network.state_dict(), tmp_path / CHECKPOINT)
    return tmp_path


def stripes(*colors: str, width: int = 32) -> ImageBatch:
    image = torch.tensor([COLORS[color] for color in colors], dtype=torch.uint8)
    canvas = width * len(colors)
    pixels = image.repeat_interleave(width, 0).T[:, None].expand(3, 32, canvas)
    square = torch.zeros(1, 3, canvas, canvas, dtype=torch.uint8)
    square[0, :, :32] = pixels
    return ImageBatch(square, ((32, canvas),))


@pytest.mark.parametrize(
    ("background", "rose"), [({}, 255), ({"background": "other", "other": []}, 2)]
)
def test_each_part_of_an_image_gets_the_class_it_shows(
    color_clip: Path, vocabulary: BuildVocabulary, background: dict[str, Any], rose: int
) -> None:
    classes = vocabulary(
        dark=["coal"],
        light=["snow"],
        **background,
        background_concepts=["rose"],
        templates=["{}"],
    )
    keys = {"model": f"local-dir:{color_clip}", "logit_scale": 10_000.0}
    images = stripes("snow", "rose", "coal")
    labels = loaded(classes, stride_px=32, **keys).label(images)
    expected = torch.tensor([1, rose, 0]).repeat_interleave(32).expand(32, 96)
    assert torch.equal(labels.mask[0, :32], expected)
    assert (labels.mask[0, 32:] == 255).all()
    assert (labels.confidence[0, :32][expected != 255] > 0.9).all()
    overlapping = loaded(classes, stride_px=20, short_side_px=64, **keys).label(images)
    middles = overlapping.mask[0, 16, 16::32]
    assert middles.tolist() == [1, rose, 0]


def test_the_best_of_a_classs_concepts_counts(
    color_clip: Path, vocabulary: BuildVocabulary
) -> None:
    classes = vocabulary(red=["rose"], gray=["coal", "snow"], templates=["{}"])
    labeler = loaded(classes, model=f"local-dir:{color_clip}", stride_px=32)
    labels = labeler.label(stripes("snow", "rose", "coal"))
    assert labels.mask[0, 16, 16::32].tolist() == [1, 0, 1]


def test_the_learned_scale_counts_where_none_is_given(
    color_clip: Path, vocabulary: BuildVocabulary
) -> None:
    classes = vocabulary(dark=["coal"], light=["snow"], templates=["{}"])
    keys = {"model": f"local-dir:{color_clip}", "stride_px": 32}
    learned, given, lower = (
        loaded(classes, logit_scale=scale, **keys).label(stripes("snow", "coal")).confidence
        for scale in (None, 1 / 0.07, 0.1)
    )
    torch.testing.assert_close(learned, given)
    assert (lower[0, :32] < learned[0, :32]).all()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"model": "ViT-B-16"},
            "name the `weights` of ViT-B-16: an open_clip tag such as openai, or a file",
        ),
        (
            {"model": "sandbox", "weights": "openai"},
            "leave out `weights`: sandbox has its own",
        ),
        (
            {"model": "local-dir:here", "weights": "openai"},
            "leave out `weights`: local-dir:here has its own",
        ),
        (
            {"model": "ViT-B-16", "weights": "openai", "stand_in": "sandbox"},
            "leave out `stand_in`, or name a file in `weights`, such as "
            "weights/open_clip_model.safetensors: it stands in only for a file that is missing",
        ),
        (
            {"model": "sandbox", "window_px": 32, "stride_px": 33},
            "stride_px 33 leaves gaps between windows of 32; "
            "use at most 32, or half of it for smooth seams",
        ),
        ({"model": "sandbox", "threshold": 1.5}, "less than or equal to 1"),
        ({"model": "sandbox", "logit_scale": 0}, "greater than 0"),
        ({"model": "sandbox", "batch_size": 0}, "greater than or equal to 1"),
    ],
)
def test_contradictory_configs_say_what_would_be_right(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        config(**keys)


@pytest.mark.parametrize("weights", ["weights/clip", "clip.pt", "clip.bin", "clip.safetensors"])
def test_weights_with_a_path_or_an_ending_are_a_file(weights: str) -> None:
    assert config(model="ViT-B-16", weights=weights).weights_file == Path(weights)


def test_weights_are_a_tag_unless_there_is_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config(model="ViT-B-16", weights="openai").weights_file is None
    Path("openai").touch()
    assert config(model="ViT-B-16", weights="openai").weights_file == Path("openai")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"model": "ViT-B-16", "weights": "weights/clip.pt"},
            f"weights: weights/clip.pt: there is no such file; {FETCH} --local-dir weights` and "
            "set `model: ViT-B-16-quickgelu` and `weights: weights/open_clip_model.safetensors`; "
            "or set `stand_in: sandbox` to try without it",
        ),
        (
            {"model": "ViT-B-16-quickgelu", "weights": f"weights/b16/{CHECKPOINT}"},
            f"weights: weights/b16/{CHECKPOINT}: there is no such file; {FETCH} "
            "--local-dir weights/b16`; or set `stand_in: sandbox` to try without it",
        ),
        (
            {"model": "convnext_base", "weights": "clip.bin"},
            "weights: clip.bin: there is no such file; save a checkpoint of convnext_base there; "
            "or set `stand_in: sandbox` to try without it",
        ),
        (
            {"model": "local-dir:nowhere"},
            "model: local-dir:nowhere: the folder does not contain both open_clip_config.json and "
            "weights; put open_clip_config.json and open_clip_model.safetensors there",
        ),
    ],
)
def test_missing_weights_say_how_to_get_them(
    keys: dict[str, Any],
    message: str,
    vocabulary: BuildVocabulary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    labeler = DenseClip(config(**keys), vocabulary(cat=None))
    for call in (labeler.weights_facts, lambda: labeler.load(CPU)):
        with pytest.raises(WeightsError) as raised:
            call()
        assert str(raised.value) == message


def test_a_checkpoint_of_another_architecture_is_refused(
    clip_folder: ClipFolder, vocabulary: BuildVocabulary
) -> None:
    weights = str(clip_folder("convnext") / CHECKPOINT)
    with pytest.raises(WeightsError) as raised:
        loaded(vocabulary(cat=None), model="RN50", weights=weights)
    assert str(raised.value).startswith(f"weights: {weights}: the weights do not fit RN50: ")
    assert str(raised.value).endswith("; set `model` to the architecture they were trained with")


def test_facts_tell_weights_apart(clip_folder: ClipFolder, vocabulary: BuildVocabulary) -> None:
    folder = clip_folder("vit")

    def checksum(name: str) -> str:
        return f"{name} sha256:{hashlib.sha256((folder / name).read_bytes()).hexdigest()[:12]}"

    def facts(**keys: Any) -> dict[str, Any]:
        return DenseClip(config(**keys), vocabulary(cat=None)).weights_facts()

    assert facts(model="ViT-B-16", weights="openai") == {"weights": "openai"}
    file = str(folder / CHECKPOINT)
    assert facts(model="ViT-B-16", weights=file) == {"weights": checksum(CHECKPOINT)}
    assert facts(model=f"local-dir:{folder}") == {
        "weights": checksum(CHECKPOINT),
        "weights.config": checksum("open_clip_config.json"),
    }
    assert facts(model="ViT-B-16", weights=file, stand_in="sandbox") == {
        "weights": checksum(CHECKPOINT)
    }


def test_the_stand_in_labels_and_says_so(vocabulary: BuildVocabulary) -> None:
    keys = {"model": "ViT-B-16-quickgelu", "weights": f"weights/none/{CHECKPOINT}"}
    labeler = loaded(vocabulary(cat=None, dog=None), stand_in="sandbox", **keys)
    assert labeler.label(batch_of((64, 40))).mask[0, :, :40].max() < 2
    sandbox = DenseClip(config(model="sandbox"), vocabulary(cat=None, name="sandbox"))
    own = sandbox.weights_facts()
    assert labeler.weights_facts() == {**own, "weights": f"stand-in sandbox: {own['weights']}"}
    assert labeler.warnings() == [
        f"weights/none/{CHECKPOINT} is missing, so the stand-in is used: the sandbox's CLIP was "
        "trained on drawn scenes and knows nothing of real photos (labels of photos are near "
        f"chance); {FETCH} --local-dir weights/none`"
    ]


def test_the_sandboxs_clip_warns_where_it_is_asked_about_other_things(
    vocabulary: BuildVocabulary, clip_folder: ClipFolder
) -> None:
    def warnings(name: str, **keys: Any) -> list[str]:
        return DenseClip(config(**keys), vocabulary(cat=None, name=name)).warnings()

    assert warnings("sandbox", model="sandbox") == []
    assert warnings("voc", model="ViT-B-16", weights="openai") == []
    assert warnings("voc", model="sandbox") == [
        "vocabulary voc: the sandbox's CLIP was trained on drawn scenes and knows nothing of real "
        "photos (labels of photos are near chance); use another model"
    ]


def test_named_repositories_are_open_clips(vocabulary: BuildVocabulary) -> None:
    for model, repository in clip_weights._OPENAI_REPOSITORIES.items():
        tag = open_clip.get_pretrained_cfg(model, "openai")
        assert tag["hf_hub"] == f"{repository}/"
        assert tag["quick_gelu"]
        assert f"{model}-quickgelu" in open_clip.list_models()


def test_checking_a_config_takes_no_torch() -> None:
    code = (
        "import sys\n"
        "from pipeline.config.vocabulary import Vocabulary\n"
        "from stages.pseudolabel.labelers.dense_clip import DenseClip\n"
        "keys = {'model': 'ViT-B-16', 'weights': 'openai', 'window_px': 224, 'stride_px': 112}\n"
        "classes = [{'name': 'cat', 'color': '#000000'}]\n"
        "labeler = DenseClip(DenseClip.Config(**keys), Vocabulary(name='a', classes=classes))\n"
        "assert (labeler.weights_facts(), labeler.warnings()) == ({'weights': 'openai'}, [])\n"
        "assert not {'torch', 'open_clip', 'timm'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_is_found_by_its_name() -> None:
    assert "dense_clip" in names("stages.pseudolabel.labelers")
    assert find("stages.pseudolabel.labelers", "dense_clip", Component) is DenseClip
