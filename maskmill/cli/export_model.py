"""The commands `export model` and `export push`."""

import re
from pathlib import Path
from typing import Annotated

import typer


def model(
    to: Annotated[
        str, typer.Option("--to", metavar="KIND[,...]", help="onnx, torchscript, safetensors.")
    ],
    out: Annotated[Path, typer.Option("--out", help="A new folder.")],
    file: Annotated[
        Path | None, typer.Option("--model", help="A model file: model.safetensors of a training.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN[/VARIANT[/SEED]]", help="Or a finished training here."),
    ] = None,
    size: Annotated[
        str,
        typer.Option("--size", metavar="HxW", help="Images that the graph is checked with."),
    ] = "256x256",
) -> None:
    """Write a network for other runtimes, checked against it, with a model card."""
    from maskmill.cli.opened_run import leader_console
    from stages.export.model.export_model import Request, export_model, scores_of_run
    from stages.predict.model import key_of_file, model_of_run

    if (file is None) == (run is None):
        raise typer.BadParameter("name either a file or a run", param_hint="--model or --run")
    if (sides := re.fullmatch(r"([1-9][0-9]{1,3})x([1-9][0-9]{1,3})", size)) is None:
        raise typer.BadParameter("write HEIGHTxWIDTH in pixels: 512x512", param_hint="--size")
    path, scores, title = file, {}, "Segmenter"
    if run is not None:
        path = model_of_run(Path(), run)
        name, key = run.partition("/")[0], key_of_file(path)
        scores, title = scores_of_run(Path(), name, key.variant, key.seed), f"{name}, {key.variant}"
    assert path is not None
    kinds = [kind.strip() for kind in to.split(",")]
    asked = (int(sides[1]), int(sides[2]))
    export_model(Request(path, kinds, out, asked, title, scores), leader_console())


def push(
    folder: Annotated[Path, typer.Argument(help="What `maskmill export model` wrote.")],
    repo: Annotated[str, typer.Option("--repo", metavar="USER/NAME", help="The repository.")],
) -> None:
    """Upload an exported model to the Hugging Face hub, where you are logged in."""
    from maskmill.cli.opened_run import leader_console
    from stages.export.model.export_model import push as upload

    upload(folder, repo, leader_console())
