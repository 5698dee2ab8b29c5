"""The run configs of datasets: each is read, built and checked with every preset it is for."""

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from pipeline.config import config as config_file
from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.engine.stage import Context
from stages.graph import GRAPH
from stages.ingest.config import IngestConfig, ingest_section
from stages.train import preset
from stages.train.config import TrainConfig
from tests.repository import ROOT, shipped

FOLDER = ROOT / "configs/datasets"
SHIPPED = shipped("configs/datasets/*.yaml")
DATASETS = {name for each in preset.names() for name in preset.datasets(each)}
LABELED_BEFORE = {"sed": "-ood", "sam_clip": "-sam-clip"}
"""What the names of configs end with that have these labelers."""
MISSING = {("zero-shot-sam-clip", "coco")}
"""No config of its own: the two keys of voc-sam-clip.yaml do."""
EACH = [
    (name, dataset)
    for name in preset.names()
    for dataset in preset.datasets(name)
    if (name, dataset) not in MISSING
]


@pytest.fixture(autouse=True)
def of_the_default_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPLIT", raising=False)


def load(path: Path, *overrides: str) -> Config:
    sections = {stage.name: stage.Config for stage in GRAPH}
    return config_file.load(path, sections, overrides)


def config_for(name: str, dataset: str) -> Path:
    sources = preset.expanded({"preset": name, "dataset": dataset})["label_sources"]
    labelers = [source["labeler"] for source in sources if isinstance(source.get("labeler"), str)]
    ending = LABELED_BEFORE[labelers[0]] if labelers else ""
    return FOLDER / f"{dataset}{ending}.yaml"


def test_every_dataset_that_a_preset_names_has_a_config() -> None:
    assert {path.stem for path in SHIPPED} >= DATASETS


@pytest.mark.parametrize(("name", "dataset"), EACH)
def test_a_config_trains_any_preset_that_has_its_dataset(
    name: str, dataset: str, tmp_path: Path
) -> None:
    """Building the stages checks labelers, roles and masks against each other."""
    config = load(config_for(name, dataset), f"train.preset={name}", f"workspace={tmp_path}")
    train = config.sections["train"]
    assert isinstance(train, TrainConfig)
    (variant,) = train.variants.values()
    assert (variant.preset, variant.dataset) == (name, dataset)
    for stage in GRAPH:
        if stage.name in config.sections:
            stage(config.sections[stage.name], Context(config, Console()))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_is_not_there_is_reported_with_an_address(
    path: Path,
    maskmill: Callable[..., CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MASKMILL_DATA", str(tmp_path / "none"))
    done = maskmill("data", "check", path)
    assert (done.returncode, done.stderr) == (1, "")
    section = ingest_section(load(path))
    assert section.split in section.expected
    noted = re.findall(r"^get (\S+): .*https?://", done.stdout, re.MULTILINE)
    assert {*noted} <= {*section.download}
    for spelled in spelled_folders(section):
        assert any(note.startswith(spelled) for note in noted), spelled


def spelled_folders(section: IngestConfig) -> set[str]:
    keys = [source.source.plain() for source in section.sources.values()]
    return {each["root"] if each["name"] == "list" else each["images"] for each in keys}


TOTALS = {"voc": 10582, "pascal-context": 4996, "cityscapes": 2975, "coco": 118287}
TOTALS |= {"ade20k": 20210, "chase-db1": 20, "covid-19-ct": 50}


@pytest.mark.parametrize("dataset", TOTALS)
def test_labeled_and_unlabeled_images_are_all_that_there_are(dataset: str) -> None:
    counts = ingest_section(load(FOLDER / f"{dataset}.yaml")).expected.values()
    assert {each["labeled"] + each["unlabeled"] for each in counts} == {TOTALS[dataset]}


@pytest.mark.parametrize("dataset", ["chase-db1", "covid-19-ct"])
def test_our_own_splits_share_no_image(dataset: str) -> None:
    section = ingest_section(load(FOLDER / f"{dataset}.yaml"))
    folder = FOLDER / "splits" / dataset
    split = folder / str(section.split)
    files = {name: split / f"{name}.txt" for name in ("labeled", "unlabeled")}
    files["test"] = folder / "test.txt"
    lines = {name: file.read_text().splitlines() for name, file in files.items()}
    assert {name: len(own) for name, own in lines.items()} == section.expected[str(section.split)]
    every = [line for own in lines.values() for line in own]
    assert len({*every}) == len(every)
    train = (folder / "train.txt").read_text().splitlines()
    assert sorted(lines["labeled"] + lines["unlabeled"]) == train
