import pickle
import sys
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import ValidationError

from pipeline.config.components import Choice, Component, chosen_from, find, names
from pipeline.config.config_section import RunOnly, Section

FAMILY = "test_shapes"
CIRCLE = """
from typing import Annotated
from pipeline.config.components import Component
from pipeline.config.config_section import RunOnly, Section

class CircleConfig(Section):
    radius_px: int = 3
    device: Annotated[str, RunOnly] = "auto"

class Circle(Component):
    Config = CircleConfig
    version = 2

    def __init__(self, config, color="red"):
        self.config, self.color = config, color
"""


@pytest.fixture(autouse=True)
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / FAMILY
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "base.py").touch()
    (folder / "circle.py").write_text(CIRCLE)
    (folder / "broken.py").write_text("raise AssertionError('nobody chose this file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == FAMILY]:
        monkeypatch.delitem(sys.modules, name)


class Picture(Section):
    shape: Annotated[Choice[Component], *chosen_from(FAMILY, Component)]
    title: Annotated[str, RunOnly] = ""


def test_the_folder_is_the_registry() -> None:
    assert names(FAMILY) == ["broken", "circle"]
    assert find(FAMILY, "circle", Component).file_name() == "circle"
    assert f"{FAMILY}.broken" not in sys.modules


def test_an_unknown_name_lists_those_there_are() -> None:
    for name in ("square", "base", "circle.Circle", ""):
        with pytest.raises(ValueError, match=r"^use one of: broken, circle$"):
            find(FAMILY, name, Component)


@pytest.mark.parametrize(
    "written", ["circle", {"name": "circle"}, {"name": "circle", "radius_px": 3}]
)
def test_a_name_and_a_mapping_mean_the_same(written: object) -> None:
    picture = Picture.model_validate({"shape": written})
    assert picture.facts("picture") == {
        "picture.shape.name": "circle",
        "picture.shape.version": 2,
        "picture.shape.radius_px": 3,
    }


def test_a_choice_builds_its_component_from_its_keys() -> None:
    picture = Picture.model_validate({"shape": {"name": "circle", "radius_px": 5}})
    circle = picture.shape.create(color="blue")
    assert vars(circle) == {"config": picture.shape.config, "color": "blue"}
    assert picture.shape.config.model_dump() == {"radius_px": 5, "device": "auto"}


def test_a_resolved_config_reads_back_as_itself() -> None:
    picture = Picture.model_validate({"shape": {"name": "circle", "radius_px": 5}})
    plain = picture.model_dump(mode="json")
    assert plain["shape"] == {"name": "circle", "radius_px": 5, "device": "auto"}
    assert Picture.model_validate(plain) == picture
    assert Picture(shape=picture.shape) == picture


def test_a_choice_travels_to_workers() -> None:
    choice = Picture.model_validate({"shape": "circle"}).shape
    assert pickle.loads(pickle.dumps(choice)) == choice


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ({"name": "circle", "radius": 5}, ("shape", "radius")),
        ({"name": "circle", "radius_px": "wide"}, ("shape", "radius_px")),
        ({"name": "square"}, ("shape",)),
    ],
)
def test_errors_name_the_place(written: object, place: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as error:
        Picture.model_validate({"shape": written})
    assert error.value.errors()[0]["loc"] == place


def test_a_component_without_keys_and_version_has_defaults() -> None:
    class Plain(Component):
        pass

    choice = Choice("plain", Plain, Plain.Config())
    assert choice.facts("shape") == {"shape.name": "plain", "shape.version": 1}
