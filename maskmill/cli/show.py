"""The command `show`."""

from typing import Annotated

import typer

from maskmill.cli.options import ConfigOption, SetOption


def show(
    image: Annotated[str, typer.Argument(help="An image_id of the images manifest, or a path.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Print an image's rows and classes, and draw its labels over it."""
    from maskmill.cli.opened_run import leader_console, opened_run
    from maskmill.cli.show_image import show_image

    with opened_run(config, overrides) as loaded:
        show_image(loaded, image, leader_console())
