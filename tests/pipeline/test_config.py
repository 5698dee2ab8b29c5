from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from pipeline.config.config import Config, load
from pipeline.config.config_section import RunOnly, Section
from pipeline.errors import ConfigError
from stages.graph import GRAPH
from tests.repository import ROOT, shipped

SECTIONS = {stage.name: stage.Config for stage in GRAPH}


WriteConfig = Callable[..., Path]


class Inner(Section):
    threshold: float = 0.5
    device: Annotated[str, RunOnly] = "auto"


class Outer(Section):
    sizes: tuple[int, ...] = (1, 2)
    inner: Inner = Inner()
    by_name: dict[str, Inner] = Field(default_factory=dict)
    several: tuple[Inner, ...] = ()
    workers: Annotated[int, RunOnly] = 2


def test_facts_are_flat_and_leave_out_what_only_changes_how_it_runs() -> None:
    section = Outer(by_name={"a": Inner(threshold=0.7)}, several=(Inner(), Inner(threshold=1)))
    assert section.facts("stage") == {
        "stage.sizes": [1, 2],
        "stage.inner.threshold": 0.5,
        "stage.by_name.a.threshold": 0.7,
        "stage.several.0.threshold": 0.5,
        "stage.several.1.threshold": 1.0,
    }


def test_the_default_config_is_read() -> None:
    config = load(ROOT / "configs/sandbox.yaml", SECTIONS)
    stages = [stage.name for stage in GRAPH]
    assert list(config.sections) == [name for name in stages if name in config.sections]
    flow = {"sandbox", "ingest", "propose", "pseudolabel", "train", "evaluate", "report"}
    assert config.sections.keys() >= flow
    assert config.manifests == Path("manifests/sandbox")
    assert config.data == Path("artifacts/sandbox/data")
    assert config.vocabulary.class_names[:3] == ("background", "car", "bus")


def test_every_config_of_the_project_is_read() -> None:
    for path in shipped("configs/*.yaml"):
        assert load(path, SECTIONS).run.run == path.stem


def test_a_config_may_extend_another(
    tiny: dict[str, Any], write_config: WriteConfig, tmp_path: Path
) -> None:
    """Through two files; the last one wins, and overrides win over it."""
    write_config({**tiny, "cluster": {"workers": 1}})
    (tmp_path / "more.yaml").write_text(
        "{extends: config.yaml, cluster: {workers: 2}, ingest: {shard_size: 16}}"
    )
    most = tmp_path / "most.yaml"
    most.write_text("{extends: more.yaml, run: most, ingest: {shard_size: 32}}")
    config = load(most, SECTIONS)
    assert (config.path, config.run.run, config.run.cluster.workers) == (most, "most", 2)
    assert config.vocabulary.name == "shapes"
    facts = config.sections["ingest"].facts("ingest")
    assert facts["ingest.shard_size"] == 32
    assert facts["ingest.sources.ood.role"] == "ood"
    assert load(most, SECTIONS, ["run=other"]).run.run == "other"


def test_the_key_on_is_no_boolean(tiny: dict[str, Any], write_config: WriteConfig) -> None:
    path = write_config({**tiny, "sandbox": {"ood_masks": True}})
    sources = "[{name: student, on: ood}]"
    train = f"train: {{model: small_unet, perturbation: unimatch, label_sources: {sources}}}\n"
    path.write_text(path.read_text() + train)
    for overrides in ([], [f"train.label_sources={sources}"]):
        config = load(path, SECTIONS, ["run=truest", *overrides])
        assert config.run.run == "truest"
        facts = config.sections["train"].facts("train")
        assert facts["train.variants.default.label_sources.0.on"] == "ood"
        assert config.sections["sandbox"].facts("sandbox")["sandbox.ood_masks"] is True


def test_an_empty_key_keeps_what_is_extended_and_null_takes_it_back(
    tiny: dict[str, Any], write_config: WriteConfig
) -> None:
    window = {"side_px": 32, "stride_px": 16}
    path = write_config({**tiny, "evaluate": {"sliding_window": window, "flip": True}})
    found = []
    for value in ("", "null", "~"):
        over = path.with_name("over.yaml")
        over.write_text(f"extends: config.yaml\nevaluate:\n  sliding_window: {value}\n")
        found.append(load(over, SECTIONS).sections["evaluate"].facts("evaluate"))
    kept, *taken = found
    assert kept["evaluate.sliding_window.side_px"] == 32
    assert all(facts["evaluate.sliding_window"] is None for facts in taken)
    assert all(facts["evaluate.flip"] is True for facts in found)


def test_an_empty_key_over_nothing_is_null(
    tiny: dict[str, Any], write_config: WriteConfig, tmp_path: Path
) -> None:
    path = write_config(tiny)
    vocabulary = tmp_path / "vocabulary.yaml"
    lines = vocabulary.read_text().replace("background: background\n", "background:\n")
    vocabulary.write_text(lines)
    config = load(path, SECTIONS, ["evaluate={sliding_window: }"])
    assert config.vocabulary.background is None
    assert config.sections["evaluate"].facts("evaluate")["evaluate.sliding_window"] is None


WRONG_EXTENDS = {
    "none.yaml": "{folder}/none.yaml: cannot read the file: No such file or directory; "
    "set `extends` in {folder}/most.yaml to an existing file",
    "../config.yaml": "{folder}/most.yaml: extends: '../config.yaml' is wrong; "
    "name one config file in the same folder, e.g. sandbox.yaml",
    "": "{folder}/most.yaml: extends: None is wrong; "
    "name one config file in the same folder, e.g. sandbox.yaml",
    "''": "{folder}/most.yaml: extends: '' is wrong; "
    "name one config file in the same folder, e.g. sandbox.yaml",
    "[config.yaml]": "{folder}/most.yaml: extends: ['config.yaml'] is wrong; "
    "name one config file in the same folder, e.g. sandbox.yaml",
    "most.yaml": "{folder}/most.yaml: extends: most.yaml extends this file; remove one `extends`",
    "back.yaml": "{folder}/back.yaml: extends: most.yaml extends this file; remove one `extends`",
}


@pytest.mark.parametrize("name", WRONG_EXTENDS)
def test_a_config_that_cannot_be_extended_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "most.yaml").write_text(f"extends: {name}")
    (tmp_path / "back.yaml").write_text("extends: most.yaml")
    with pytest.raises(ConfigError) as error:
        load(tmp_path / "most.yaml", SECTIONS)
    assert str(error.value) == WRONG_EXTENDS[name].replace("{folder}", str(tmp_path))


@pytest.fixture
def load_tiny(tiny: dict[str, Any], write_config: WriteConfig) -> Callable[..., Config]:
    return lambda *overrides: load(write_config(tiny), SECTIONS, overrides)


def test_overrides_reach_mappings_lists_and_keys_that_are_not_there(
    tiny: dict[str, Any], load_tiny: Callable[..., Config]
) -> None:
    tiny["train"] = {
        "model": "small_unet",
        "perturbation": "unimatch",
        "label_sources": [{"name": "student", "threshold": 0.95}],
    }
    config = load_tiny(
        "run=other", "cluster.workers=2", "train.label_sources.0.threshold=0.5", "train.steps=7"
    )
    assert config.run.run == "other"
    assert config.run.cluster.workers == 2
    facts = config.sections["train"].facts("train")
    assert facts["train.variants.default.label_sources.0.threshold"] == 0.5
    assert facts["train.variants.default.steps"] == 7


def test_the_environment_fills_in_values(
    tiny: dict[str, Any], load_tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.delenv("NOWHERE", raising=False)
    tiny["workspace"] = "${SCRATCH}/work"
    tiny["data"] = "${NOWHERE:-/default}/images"
    tiny["ingest"]["shard_size"] = "${NOWHERE:-8}"
    config = load_tiny()
    assert config.run.workspace == Path("/scratch/work")
    assert config.run.data == Path("/default/images")
    assert config.sections["ingest"].facts("ingest")["ingest.shard_size"] == 8


def test_numbers_may_be_written_in_several_ways(load_tiny: Callable[..., Config]) -> None:
    for text in ("8", "8.0", "'8'"):
        facts = load_tiny(f"ingest.shard_size={text}").sections["ingest"].facts("ingest")
        assert facts["ingest.shard_size"] == 8


@pytest.mark.parametrize("text", ["1_0", "'1_0'", "1_0.0"])
def test_a_number_is_written_without_underscores(
    text: str, load_tiny: Callable[..., Config]
) -> None:
    """In YAML 1.2 these are texts, of which some libraries read 10."""
    with pytest.raises(ConfigError, match="write the number without `_`"):
        load_tiny(f"ingest.shard_size={text}")
    with pytest.raises(ConfigError, match="write the number without `_`"):
        load_tiny(f"ingest.limits.max_pixels={text}")


def test_a_bare_section_means_all_defaults(
    tiny: dict[str, Any], load_tiny: Callable[..., Config]
) -> None:
    tiny["sandbox"] = None
    assert load_tiny().sections["sandbox"] == SECTIONS["sandbox"]()


WRONG_OVERRIDES = {
    "run": "not an override; write --set key.subkey=value",
    "=3": "not an override; write --set key.subkey=value",
    "run=[": "the value is not valid YAML; quote it",
    "run=\0": "the character U+0000 is not allowed; remove it",
    'run="\\0"': "the character U+0000 is not allowed; remove it",
    "run.name=a": "'run' is a value; set the key itself",
    "list.5=a": "'5' is no position of the list; the list has 2 items; write a position, from 0",
    "list.first=a": "'first' is no position of the list; "
    "the list has 2 items; write a position, from 0",
    "list.0.deeper=a": "'0' is a value; set the key itself",
    "list.0.deeper.still=a": "'0' is a value; set the key itself",
}


@pytest.mark.parametrize("override", WRONG_OVERRIDES)
def test_a_wrong_override_is_named_as_it_was_typed(
    override: str, tiny: dict[str, Any], load_tiny: Callable[..., Config]
) -> None:
    tiny["list"] = [1, 2]
    with pytest.raises(ConfigError) as error:
        load_tiny(override)
    assert str(error.value) == f"--set {override}: {WRONG_OVERRIDES[override]}"


WRONG_FILES = {
    "a: [1": "line 1: not valid YAML: expected ',' or ']', but got '<stream end>'; correct it",
    "a: {b: 1, b: 2}": "line 1: the key b is written twice, in lines 1 and 1; keep one of them",
    "[" * 2000: "line 1: nested deeper than 50 levels; correct it",
    "- a": "not a mapping of keys; write `key: value` lines",
    "": "not a mapping of keys; write `key: value` lines",
    "\xff": "cannot read the file: it is not UTF-8 text; save it as UTF-8 text",
    "\xff\xfea\0": "cannot read the file: it is not UTF-8 text; save it as UTF-8 text",
}


@pytest.mark.parametrize("content", WRONG_FILES)
def test_a_file_that_is_no_config_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError) as error:
        load(path, SECTIONS)
    assert str(error.value).startswith(f"{path}: {WRONG_FILES[content]}")
    assert "\n" not in str(error.value)


def test_missing_files_are_named_with_who_asks_for_them(
    tmp_path: Path, tiny: dict[str, Any], write_config: WriteConfig
) -> None:
    with pytest.raises(ConfigError) as no_config:
        load(tmp_path / "none.yaml", SECTIONS)
    assert str(no_config.value) == (
        f"{tmp_path}/none.yaml: cannot read the file: No such file or directory; "
        "name an existing file; `maskmill configs copy` gives one to begin with"
    )
    path = write_config({**tiny, "vocabulary": "none.yaml"})
    with pytest.raises(ConfigError) as no_vocabulary:
        load(path, SECTIONS)
    assert str(no_vocabulary.value) == (
        f"{tmp_path}/none.yaml: cannot read the file: No such file or directory; "
        f"set `vocabulary` in {path} to an existing file"
    )


def test_an_unset_variable_is_named(
    tiny: dict[str, Any], load_tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    tiny["data"] = "${NOWHERE}/images"
    with pytest.raises(ConfigError, match=r"NOWHERE is not set; set it: export NOWHERE="):
        load_tiny()
