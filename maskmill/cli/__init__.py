"""The command line: a file for each command, named like it; `app.py` lists them.

A new command is a function in a file of its own and a line in `app.py`. These files import at the
top only typer, so that help and completion start fast; commands import what they need inside.
"""
