"""Makes small wrong changes to the code and asks the tests: `python -m tools.mutants`."""
