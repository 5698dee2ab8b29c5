"""The entry point: where Maskmill cannot run it says so, and errors of commands become lines."""

import io
import os
import sys

from maskmill.cli import surroundings


def main() -> None:
    """Entry point of the command `maskmill`, and of `python -m maskmill`."""
    if (problem := surroundings.problem()) is not None:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(1)
    # Torch's idle threads spin by default, which starves the threads that decode images.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        # A terminal may know fewer letters than names have.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _run()


def _run() -> None:
    from maskmill.cli.app import app
    from pipeline.errors import MaskmillError, from_os_error
    from pipeline.stopping import Stopped

    try:
        app(prog_name="maskmill")
    except MaskmillError as error:
        _print_errors(error.lines)
        sys.exit(1)
    except OSError as error:
        _print_errors([str(from_os_error(error))])
        _forget_stdout()
        sys.exit(1)
    except Stopped as stopped:
        from maskmill.cli.opened_run import leader_console

        done = stopped.done or "what is done stays done"
        leader_console().note(f"stopped: {done}; {stopped.how} to go on")
        sys.exit(stopped.exit_code)


def _print_errors(lines: list[str]) -> None:
    from maskmill.cli.opened_run import leader_console

    console = leader_console()
    for line in lines:
        console.error(line)


def _forget_stdout() -> None:
    """Drops what stdout cannot take (a full disk), which Python would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
