"""The command `predict`."""

from pathlib import Path
from typing import Annotated

import typer

_KINDS = ("masks", "overlays", "probabilities", "json")


def predict(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT...",
            help="Images, folders, patterns, lists (.txt .csv .parquet), .tar archives, videos.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder of the results.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="A model file: model.safetensors of a training.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN[/VARIANT[/SEED]]", help="Or a finished training here."),
    ] = None,
    to: Annotated[
        str, typer.Option("--to", help=f"Kinds of files, of {', '.join(_KINDS)}.")
    ] = "masks",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, mps, or auto.")] = "auto",
    every: Annotated[
        int, typer.Option("--every", min=1, help="Of a video, predict every so many-th frame.")
    ] = 1,
) -> None:
    """Predict masks of images by a trained network; an interrupted call goes on."""
    from maskmill.cli.opened_run import leader_console
    from pipeline import stopping
    from stages.predict.model import model_of_run
    from stages.predict.predict import Request
    from stages.predict.predict import predict as predict_images

    kinds = [kind.strip() for kind in to.split(",")]
    if unknown := [kind for kind in kinds if kind not in _KINDS]:
        message = f"{unknown[0]!r} is none of {', '.join(_KINDS)}"
        raise typer.BadParameter(message, param_hint="--to")
    if (model is None) == (run is None):
        raise typer.BadParameter("name either a file or a run", param_hint="--model or --run")
    file = model if model is not None else model_of_run(Path(), str(run))
    console = leader_console()
    with stopping.on_signals(console.note):
        predict_images(Request(what, file, out, kinds, device, every), console)
