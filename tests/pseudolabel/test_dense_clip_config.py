import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
from pydantic import ValidationError

from pipeline.config.components import Component, find, names
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import WeightsError
from stages.models.clip import clip_weights
from stages.pseudolabel.labelers.dense_clip import DenseClip
from tests.pseudolabel.dense_clips import CHECKPOINT, CPU, config, loaded
from tests.pseudolabel.image_batches import batch_of

FETCH = "run `hf download timm/vit_base_patch16_clip_224.openai open_clip_model.safetensors"


ClipFolder = Callable[[str], Path]


BuildVocabulary = Callable[..., Vocabulary]


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
        ({"model": "sandbox", "threshold": 1.5}, "write a number from 0 to 1"),
        ({"model": "sandbox", "logit_scale": 0}, "write a number above 0 or null"),
        ({"model": "sandbox", "batch_size": 0}, "write a whole number from 1"),
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


def test_facts_distinguish_weights(clip_folder: ClipFolder, vocabulary: BuildVocabulary) -> None:
    folder = clip_folder("vit")

    def checksum(name: str) -> str:
        return f"{name} sha256:{hashlib.sha256((folder / name).read_bytes()).hexdigest()[:12]}"

    def facts(**keys: Any) -> dict[str, Any]:
        return DenseClip(config(**keys), vocabulary(cat=None)).weights_facts()

    assert facts(model="ViT-B-16", weights="openai") == {"weights": "openai"}
    file = str(folder / CHECKPOINT)
    beside = {
        "weights": checksum(CHECKPOINT),
        "weights.config": checksum("open_clip_config.json"),
    }
    assert facts(model="ViT-B-16", weights=file) == beside
    assert facts(model=f"local-dir:{folder}") == {
        "weights": checksum(CHECKPOINT),
        "weights.config": checksum("open_clip_config.json"),
        "weights.bpe.txt.gz": checksum("bpe.txt.gz"),
    }
    assert facts(model="ViT-B-16", weights=file, stand_in="sandbox") == beside


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
