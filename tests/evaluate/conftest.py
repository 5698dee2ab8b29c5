from tests.finished_run import (
    artifacts,
    call,
    data,
    manifests,
    outcome,
    run_folder,
    values,
    write,
)

__all__ = ["artifacts", "call", "data", "manifests", "outcome", "run_folder", "values", "write"]
