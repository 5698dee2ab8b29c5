"""Generators and functions that read a name later than the reader thinks."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
Scope = ast.FunctionDef | ast.AsyncFunctionDef
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
LAZY = (ast.GeneratorExp, ast.Lambda, ast.FunctionDef)
PASSED_ON = {"map", "filter", "zip", "chain", "islice", "enumerate", "partial", "submit", "iter"}
"""Calls that return before they have read a generator."""


def inside(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope, without those of the scopes in it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, SCOPES):
            yield from inside(child)


def read_later(lazy: ast.AST) -> set[str]:
    """Names that a generator or function reads when it runs, and does not bind itself."""
    nodes = [*ast.walk(lazy)]
    if isinstance(lazy, ast.GeneratorExp):  # its first iterable is evaluated at once
        now = {*ast.walk(lazy.generators[0].iter)}
        nodes = [node for node in nodes if node not in now]
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return {node.id for node in names if isinstance(node.ctx, ast.Load)} - bound


def is_read_at_once(lazy: ast.AST, scope: ast.AST) -> bool:
    """Whether a generator is read to its end by the expression or statement that it is in."""
    for node in inside(scope):
        if isinstance(node, ast.Call) and lazy in node.args:
            return ast.unparse(node.func).rpartition(".")[2] not in PASSED_ON
        if isinstance(node, ast.Starred | ast.YieldFrom) and node.value is lazy:
            return True
        if isinstance(node, ast.Assign) and node.value is lazy:
            return isinstance(node.targets[0], ast.Tuple)
    return False


def lazily_read(source: str) -> list[tuple[int, str]]:
    """Line and name of what is bound again after a generator or function that reads it was made."""
    found = []
    scopes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, Scope))
    for scope in scopes:
        nodes = [*inside(scope)]
        stored = [
            (node.lineno, node.id)
            for node in nodes
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        ]
        for lazy in (node for node in nodes if isinstance(node, LAZY)):
            if isinstance(lazy, ast.GeneratorExp) and is_read_at_once(lazy, scope):
                continue
            later = {name for line, name in stored if line > (lazy.end_lineno or 0)}
            found += [(lazy.lineno, name) for name in sorted(read_later(lazy) & later)]
    return found


def test_the_case_that_stopped_every_training_on_a_gpu_is_found() -> None:
    source = """
def change(images, rows, parameters):
    own = (p[rows] for p in parameters)
    rows = rows.to(images.device)
    return images.index_copy(0, rows, f(images[rows], *own))
"""
    assert lazily_read(source) == [(3, "rows")]
    listed = source.replace("(p[rows] for p in parameters)", "[p[rows] for p in parameters]")
    assert lazily_read(listed) == []


@pytest.mark.parametrize("folder", ["pipeline", "stages", "tools", "benchmarks"])
def test_nothing_reads_a_name_after_it_was_bound_again(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {
        f"{file.relative_to(ROOT)}:{line}": name
        for file in files
        for line, name in lazily_read(file.read_text())
    }
    assert found == {}
