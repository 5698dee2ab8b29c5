"""The lists of what a config can name."""

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from pipeline.config import components
from stages.train import preset
from tests.repository import shipped

Maskmill = Callable[..., CompletedProcess[str]]
LISTS = {
    "labelers": components.names("stages.pseudolabel.labelers"),
    "networks": components.names("stages.models.segmenters.builders"),
    "sources": components.names("stages.ingest.sources"),
    "perturbations": components.names("stages.train.step.perturbations"),
    "label-sources": components.names("stages.train.step.label_sources"),
    "losses": components.names("stages.train.step.supervised_losses"),
    "presets": preset.names(),
    "vocabularies": [path.stem for path in shipped("configs/vocabularies/*.yaml")],
}


@pytest.mark.parametrize("kind", LISTS)
def test_each_name_has_a_sentence(kind: str, maskmill: Maskmill) -> None:
    done = maskmill("list", kind)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert [*lines] == LISTS[kind]
    for text in lines.values():
        assert text.endswith(".")
        assert len(text) > 15


def test_a_list_of_the_lists(maskmill: Maskmill) -> None:
    kinds = maskmill("list").stdout.split()
    assert {*LISTS, "formats", "image-files", "runs"} <= {*kinds}
    for kind in kinds:
        assert maskmill("list", kind).returncode == 0


def test_a_kind_may_be_written_as_in_configs(maskmill: Maskmill) -> None:
    found = maskmill("list", "label_sources")
    assert (found.returncode, found.stdout) == (0, maskmill("list", "label-sources").stdout)


def test_an_unknown_kind_is_one_line(maskmill: Maskmill) -> None:
    done = maskmill("list", "labelrs")
    assert done.returncode == 1
    assert done.stderr.startswith("error: maskmill list: nothing is called 'labelrs'; use one of: ")


def test_the_help_of_run_lists_the_stages(maskmill: Maskmill) -> None:
    text = maskmill("run", "--help").stdout
    stages = text.partition("Stages:\n")[2]
    for name in ("sandbox", "ingest", "propose", "pseudolabel", "train", "evaluate", "report"):
        assert f"\n  {name} " in f"\n{stages}"
    assert maskmill("--version").stdout.startswith("maskmill 0.")
    assert "--install-completion" in maskmill("--help").stdout
