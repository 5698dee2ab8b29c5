import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch

from stages.models.embedded.trunk import NAME, register
from stages.sandbox.world.names import NAMES
from tools.sandbox import clip_folder
from tools.sandbox.clip_data import OBJECTS, WebCrops, prompts, random_caption
from tools.sandbox.clip_metrics import measure, name_embeddings
from tools.sandbox.train_clip import SHIPPED, image_loss, main


@pytest.fixture(scope="module")
def shipped() -> Any:
    return clip_folder.build(SHIPPED)


@pytest.fixture(scope="module")
def tokenize() -> Any:
    return clip_folder.tokenizer(SHIPPED)


def test_features_only_takes_the_weights_of_the_shipped_clip(shipped: Any) -> None:
    trunk = timm.create_model(NAME, features_only=True)
    weights = shipped.visual.trunk.state_dict()
    assert set(trunk.state_dict()) == {key.replace("stages.", "stages_") for key in weights}


def test_the_shipped_folder_opens_with_open_clip_alone(shipped: Any) -> None:
    register()
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{SHIPPED}")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, shipped.state_dict()[name])
    assert tuple(preprocess.transforms[-1].mean) == open_clip.OPENAI_DATASET_MEAN
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 8e6


def test_known_words_are_one_token_and_any_word_has_some(tokenize: Any) -> None:
    assert {len(tokenize.encode(name)) for name in NAMES} == {1}
    for text in ("zebra", "Übergrößenträger", "自転車", "a \N{SNOWMAN} & more"):
        assert tokenize.decode(tokenize.encode(text)).split() == text.lower().split()
    longest = max(len(tokenize.encode(text)) for name in NAMES for text in prompts(name))
    assert longest + 2 <= clip_folder.CONTEXT_LENGTH


def test_byte_pairs_worked_by_hand() -> None:
    assert clip_folder.byte_pair_merges(["aab", "aa", "b"]) == [
        ("a", "b</w>"),
        ("a", "ab</w>"),
        ("a", "a</w>"),
    ]


def test_the_mean_over_locations_is_the_image(shipped: Any) -> None:
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        dense, pooled = clip_folder.dense_embedding(shipped, images), shipped.encode_image(images)
    assert dense.shape == (2, clip_folder.EMBED_DIM, 8, 12)
    torch.testing.assert_close(dense.mean(dim=(2, 3)), pooled, atol=1e-4, rtol=1e-4)


def test_names_have_distance(shipped: Any, tokenize: Any) -> None:
    text = name_embeddings(shipped, tokenize)
    cosine = text @ text.T - torch.eye(len(NAMES))
    assert cosine.max() < 0.7


def test_the_shipped_clip_knows_the_web(shipped: Any, tokenize: Any) -> None:
    web = measure(shipped, tokenize, "web", seed=77, count=24)
    assert web["chance_miou"] < 0.12
    assert web["miou"] > 0.4
    assert web["tag_precision"] > 3 * web["tag_chance"]
    committed = json.loads((SHIPPED / "metrics.json").read_text())
    assert abs(committed["web"]["miou"] - web["miou"]) < 0.15


def test_a_crop_depends_on_its_scene_alone() -> None:
    late, early = (
        WebCrops(5, first=2, count=2, size_px=64),
        WebCrops(5, first=0, count=4, size_px=64),
    )
    image, names, text = late[1]
    assert torch.equal(image, early[3][0])
    assert torch.equal(names, early[3][1])
    assert text == early[3][2]
    assert (image.shape, image.dtype) == ((3, 64, 64), torch.float32)
    assert (names.shape, names.dtype) == ((16, 16), torch.int64)
    assert names.max() < len(NAMES)


def test_captions_of_undrawn_scenes_name_what_they_speak_of() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        text, positions = random_caption(rng)
        assert text.count(" and ") + text.count(" with ") >= len(positions) - 1
        assert min(positions) < OBJECTS


def test_image_loss_is_low_for_the_truth(shipped: Any, tokenize: Any) -> None:
    images, names, captions = zip(*(WebCrops(5, 0, 8, 64)[i] for i in range(8)), strict=True)
    bank = name_embeddings(shipped, tokenize)
    with torch.no_grad():
        right, _ = image_loss(
            shipped, bank, tokenize, torch.stack(images), torch.stack(names), list(captions)
        )
        wrong, _ = image_loss(
            shipped, bank, tokenize, torch.stack(images), torch.stack(names[::-1]), list(captions)
        )
    assert right < 0.6 * wrong


@pytest.mark.slow
def test_training_continues_after_an_interruption(tmp_path: Path) -> None:
    main(tmp_path / "work", tmp_path / "two", steps=2)
    main(tmp_path / "work", tmp_path / "three", steps=3)
    steps = [
        json.loads(line) for line in (tmp_path / "work" / "log.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in steps if line["stage"] == "images"] == [2, 3]
    assert clip_folder.build(tmp_path / "three").logit_scale.requires_grad
    assert json.loads((tmp_path / "three" / "metrics.json").read_text())["steps"] == 3
