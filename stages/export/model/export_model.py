"""Writes a trained network to a folder, in the files of other runtimes, with a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import jinja2
import torch
from huggingface_hub import create_repo, get_token, upload_folder
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from pipeline.config.config_section import Facts
from pipeline.console import Console
from pipeline.engine.output_folder import output_folder, read_facts
from pipeline.errors import ConfigError, DataError
from pipeline.files.checksum import checksum_of_bytes
from pipeline.records import manifest, tables
from stages.export.model.parity import Size
from stages.export.model.runtimes import RUNTIMES, Written
from stages.models.segmenters.description import ModelDescription, read_description
from stages.models.segmenters.model_file import load_model_file

_FACTS = ("train.", "inputs.", "vocabulary.")
_SCORES = ("miou", "pixel_accuracy")
_SHOWN = 200
"""Characters of a fact that the card shows."""


@dataclass(frozen=True)
class Request:
    """What to export.

    Attributes:
        model: The model file.
        kinds: Kinds of files, of `RUNTIMES`.
        out: The folder; new or empty.
        size: (height, width) that the graph is made and checked with.
        title: Title of the card.
        scores: Scores to show, by name.
    """

    model: Path
    kinds: Sequence[str]
    out: Path
    size: Size = (256, 256)
    title: str = "Segmenter"
    scores: Mapping[str, str] = field(default_factory=dict)


def export_model(request: Request, console: Console) -> None:
    """Writes the files and the card, and prints how they compare with the network.

    Raises:
        MaskmillError: The model file cannot be used, a kind is unknown or cannot be written, or the
            folder holds other things.
    """
    if unknown := [kind for kind in request.kinds if kind not in RUNTIMES]:
        fix = f"use some of: {', '.join(RUNTIMES)}"
        raise ConfigError(f"no kind {unknown[0]!r}", where="--to", fix=fix)
    about = read_description(request.model)
    network = load_model_file(request.model, torch.device("cpu")).network
    facts: Facts = {
        "model": checksum_of_bytes(request.model),
        "to": [*request.kinds],
        "size": [*request.size],
    }
    with output_folder(request.out, "an exported model", facts) as out:
        if out.is_finished:
            out.finish()  # a kill may have left the journal
            console.line(f"{request.out}: nothing to do, it was exported before")
            return
        written = []
        with TemporaryDirectory(prefix="maskmill-") as folder:
            for kind in request.kinds:
                made = RUNTIMES[kind](network, about, Path(folder), request.size)
                out.write(made.name, Path(folder, made.name).read_bytes())
                written.append(made)
                console.note(_told(made))
        out.write("README.md", _card(request, about, written).encode())
        out.finish()
    console.line(f"{', '.join(file.name for file in written)} and README.md in {request.out}")


def _told(file: Written) -> str:
    if file.parity is None:
        return f"{file.name}: the weights themselves"
    only = ""
    if file.size is not None:
        only = f"; it takes only images of {file.size[1]} x {file.size[0]} px"
    return f"{file.name}: {file.parity}{only}"


def _card(request: Request, about: ModelDescription, files: Sequence[Written]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown
    )
    facts = {
        name: str(value)[:_SHOWN]
        for name, value in about.training.depends_on.items()
        if name.startswith(_FACTS)
    }
    return environment.get_template("card.md.jinja").render(
        title=request.title,
        about=about,
        files=files,
        facts=facts,
        scores=request.scores,
        mean=list(about.normalization.mean),
        std=list(about.normalization.std),
        protocol=about.protocol.spelled(),
        versions=", ".join(f"{name} {number}" for name, number in about.versions.items()),
    )


def scores_of_run(workspace: Path, run: str, variant: str, seed: int) -> dict[str, str]:
    """The scores of a training in its run's table, by name; {} where nothing was scored."""
    folder = workspace / "manifests" / run / tables.METRICS.name
    rows = manifest.read(folder, tables.METRICS).to_pylist()
    return {
        f"{row['split']} {row['name']}": f"{row['value']:.4f}"
        for row in rows
        if (row["kind"], row["variant"], row["seed"]) == ("training", variant, seed)
        and row["name"] in _SCORES
    }


def push(folder: Path, repository: str, console: Console) -> None:
    """Uploads an exported folder to the Hugging Face hub.

    Raises:
        DataError: It is no folder that `export model` wrote.
        ConfigError: Nobody is logged in.
    """
    if read_facts(folder, "an exported model") is None:
        fix = "name a folder that `maskmill export model` wrote"
        raise DataError("no exported model", where=str(folder), fix=fix)
    if get_token() is None:
        raise ConfigError("nobody is logged in to the hub", where="push", fix="run `hf auth login`")
    try:
        create_repo(repository, exist_ok=True)
        address = upload_folder(
            folder_path=folder, repo_id=repository, ignore_patterns=[".maskmill*"]
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        fix = "check the name of the repository and the connection"
        raise ConfigError(reason, where=f"--repo {repository}", fix=fix) from error
    console.line(f"pushed to {address}")
