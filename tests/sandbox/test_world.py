from typing import get_args

import numpy as np
import pytest
import yaml

from stages.sandbox.world.captions import TEMPLATES
from stages.sandbox.world.drawn_distractors import DRAWN_DISTRACTORS
from stages.sandbox.world.drawn_targets import DRAWN_TARGETS
from stages.sandbox.world.layout import SPURIOUS_CUES, Domain
from stages.sandbox.world.names import DISTRACTORS, NAMES, STUFF, SYNONYMS, TARGETS
from stages.sandbox.world.shapes import ROLES
from stages.sandbox.world.world import Scene, render
from tests.repository import ROOT

DOMAINS: tuple[Domain, ...] = get_args(Domain)


@pytest.fixture(scope="module")
def scenes() -> dict[Domain, list[Scene]]:
    return {domain: [render(domain, 3, index) for index in range(120)] for domain in DOMAINS}


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_scene_depends_on_nothing_but_its_arguments(
    domain: Domain, scenes: dict[Domain, list[Scene]]
) -> None:
    again, first = render(domain, 3, 7), scenes[domain][7]
    np.testing.assert_array_equal(again.image, first.image)
    np.testing.assert_array_equal(again.names, first.names)
    np.testing.assert_array_equal(again.instances, first.instances)
    assert (again.caption, again.tags, again.medium) == (first.caption, first.tags, first.medium)


def test_seed_index_and_domain_each_make_another_scene() -> None:
    scenes = [render("web", 3, 7), render("web", 4, 7), render("web", 3, 8), render("id", 3, 7)]
    assert len({scene.image.tobytes() for scene in scenes}) == 4


def test_one_camera_has_one_format_and_the_web_has_many(
    scenes: dict[Domain, list[Scene]],
) -> None:
    assert {scene.names.shape for scene in scenes["id"]} == {(96, 128), (128, 96)}
    formats = {scene.names.shape for scene in scenes["web"]}
    assert len(formats) > 40
    long_sides = {max(shape) for shape in formats}
    assert long_sides <= set(range(96, 321))
    assert min(long_sides) < 110
    assert max(long_sides) > 280
    assert any(height > width for height, width in formats)
    assert any(height < width for height, width in formats)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("long_side_px", [32, 200])
def test_other_sizes(domain: Domain, long_side_px: int) -> None:
    for index in range(8):
        shape = render(domain, 1, index, long_side_px=long_side_px).names.shape
        assert max(shape) == long_side_px
        assert min(shape) >= 0.5 * long_side_px


def test_a_scene_is_the_same_at_every_size() -> None:
    small, large = (render("web", 3, 7, long_side_px=size) for size in (100, 200))
    assert small.tags == large.tags
    assert (small.names == large.names[::2, ::2]).mean() > 0.97


@pytest.mark.parametrize("domain", DOMAINS)
def test_spurious_cues_give_boats_and_buses_away_and_are_off_by_default(domain: Domain) -> None:
    def grounds_of(name: str, *, spurious_cues: bool) -> set[str]:
        scenes = [
            render(domain, 3, index, long_side_px=64, spurious_cues=spurious_cues)
            for index in range(150)
        ]
        # what the lowest row shows is the ground
        return {
            NAMES[scene.names[-1].max()]
            for scene in scenes
            if name in scene.tags and scene.names[-1].max() >= len(TARGETS + DISTRACTORS)
        }

    for name, ground in SPURIOUS_CUES.items():
        assert grounds_of(name, spurious_cues=True) == {ground}
        assert len(grounds_of(name, spurious_cues=False)) > 1


@pytest.mark.parametrize("domain", DOMAINS)
def test_with_spurious_cues_a_ground_shows_no_other_target(domain: Domain) -> None:
    for index in range(100):
        scene = render(domain, 3, index, long_side_px=64, spurious_cues=True)
        targets = set(scene.tags) & set(TARGETS)
        for name, ground in SPURIOUS_CUES.items():
            if ground in scene.tags and name in targets:
                assert targets == {name}


@pytest.mark.parametrize("domain", DOMAINS)
def test_masks_agree(domain: Domain, scenes: dict[Domain, list[Scene]]) -> None:
    stuff = len(TARGETS + DISTRACTORS)
    for scene in scenes[domain]:
        assert scene.image.shape == (*scene.names.shape, 3)
        for mask in (scene.image, scene.names, scene.instances, scene.classes):
            assert mask.dtype == np.uint8
        np.testing.assert_array_equal(scene.instances == 0, scene.names >= stuff)
        for instance in range(1, scene.instances.max() + 1):
            assert len(np.unique(scene.names[scene.instances == instance])) <= 1
        for position, name in enumerate(TARGETS):
            np.testing.assert_array_equal(scene.classes == position + 1, scene.names == position)
            assert NAMES[position] == name


@pytest.mark.parametrize("domain", DOMAINS)
def test_tags_name_what_covers_enough(domain: Domain, scenes: dict[Domain, list[Scene]]) -> None:
    for scene in scenes[domain]:
        shares = {name: (scene.names == i).mean() for i, name in enumerate(NAMES)}
        assert scene.tags == tuple(name for name in NAMES if shares[name] > 0.002)


@pytest.mark.parametrize("domain", DOMAINS)
def test_captions_speak_of_every_tag(domain: Domain, scenes: dict[Domain, list[Scene]]) -> None:
    for scene in scenes[domain]:
        assert scene.caption.startswith(f"a {scene.medium} of ")
        for name in scene.tags:
            assert any(word in scene.caption for word in SYNONYMS[name]), (name, scene.caption)


def test_everything_there_is_can_be_met(scenes: dict[Domain, list[Scene]]) -> None:
    web = {name for scene in scenes["web"] for name in scene.tags}
    ours = {name for scene in scenes["id"] for name in scene.tags}
    assert web == set(NAMES)
    assert ours >= set(TARGETS)
    assert not ours & {"wall", "paper", "pattern"}
    assert {scene.medium for scene in scenes["id"]} == {"photo"}


def test_our_camera_works_at_dusk(scenes: dict[Domain, list[Scene]]) -> None:
    id_red, _, id_blue = np.mean([scene.image.mean(axis=(0, 1)) for scene in scenes["id"]], axis=0)
    web_red, _, web_blue = np.mean(
        [scene.image.mean(axis=(0, 1)) for scene in scenes["web"]], axis=0
    )
    assert id_red < 0.75 * web_red
    assert id_blue / id_red < 0.85 * web_blue / web_red
    corners = np.mean(
        [scene.image[[0, 0, -1, -1], [0, -1, 0, -1]].mean() for scene in scenes["id"]]
    )
    centres = np.mean([scene.image[40:56, 40:56].mean() for scene in scenes["id"]])
    assert corners < 0.8 * centres


def test_drawings_fill_their_square() -> None:
    for name, variants in (DRAWN_TARGETS | DRAWN_DISTRACTORS).items():
        for parts in variants:
            assert {part.role for part in parts} <= set(ROLES), name
            corners = np.concatenate([part.corners for part in parts])
            np.testing.assert_allclose(corners.min(axis=0), -corners.max(axis=0), atol=1e-9)
            np.testing.assert_allclose(corners.max(), 1)


def test_every_name_is_drawn_and_has_words() -> None:
    assert tuple(DRAWN_TARGETS) == TARGETS
    assert tuple(DRAWN_DISTRACTORS) == DISTRACTORS
    assert len(set(NAMES)) == len(NAMES) == 29
    assert {name: words[0] for name, words in SYNONYMS.items()} == {name: name for name in NAMES}


def test_the_vocabulary_file_speaks_of_this_world() -> None:
    with (ROOT / "configs/vocabularies/sandbox.yaml").open(encoding="utf-8") as file:
        vocabulary = yaml.safe_load(file)
    classes = vocabulary["classes"]
    assert [one["name"] for one in classes] == ["background", *TARGETS]
    assert len({one["color"] for one in classes}) == len(classes)
    for one in classes[1:]:
        assert set(one["concepts"]) <= set(SYNONYMS[one["name"]])
    assert set(vocabulary["background_concepts"]) == {*STUFF, *DISTRACTORS}
    assert set(vocabulary["templates"]) <= set(TEMPLATES)
