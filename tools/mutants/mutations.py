"""Small wrong changes of a module's source: one expression or statement each.

A change is made in the text, so that lines keep their numbers and formatting. Left out is what no
result depends on: annotations, docstrings, texts of errors, ``version = 2``, sizes of caches.
"""

import ast
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeVar

N = TypeVar("N", bound=ast.AST)
T = TypeVar("T")

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_FUNCTIONS = {"round": "int", "min": "max", "max": "min", "any": "all", "all": "any"}
_QUIET = ("warn", "note", "simplefilter", "filterwarnings")
"""Calls whose loss changes no result."""
_CHECKS = ("strict",)
"""Keywords that only check what is so anyway."""
_DECLARATIONS = ("field", "Field", "TypeVar", "lru_cache", "namedtuple")
_SPEED = {
    *("_AT_ONCE", "_BLOCK_PX", "_CACHED_PX", "_CACHE_BYTES", "_MASKS_AT_ONCE", "_STEP_PX"),
    *("_TIMEOUT", "_IN_MEMORY"),
}
"""Constants that change how fast something is done, or in how much memory, and nothing else."""


@dataclass(frozen=True)
class Mutation:
    """A wrong change.

    Attributes:
        line: Line of the source, from 1.
        text: The line as it was, without its indent.
        before: The changed expression or statement, on one line.
        after: What stands in its place.
        source: The whole changed source.
    """

    line: int
    text: str
    before: str
    after: str
    source: str

    @property
    def change(self) -> str:
        """The change in a line: ``a < b -> a <= b``."""
        return f"{self.before} -> {self.after}"


def mutations(source: str) -> list[Mutation]:
    """All changes of a module, in the order of their places."""
    tree, lines = ast.parse(source), source.split("\n")
    found = []
    for node in _running(tree):
        for other in _changed(node):
            after = ast.unparse(other)
            if isinstance(node, ast.expr):
                after = f"({after})"
            before, now = (" ".join(ast.unparse(each).split()) for each in (node, other))
            text = lines[node.lineno - 1].strip()
            changed = _replaced(source, node, after)
            found.append(Mutation(node.lineno, text, before, now, changed))
    return sorted(found, key=lambda each: each.line)


def _running(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Expressions and statements that compute something, in a tree."""
    if _is_left_out(node):
        return
    if isinstance(node, ast.expr | ast.stmt):
        yield node
    if isinstance(node, ast.JoinedStr | ast.Raise):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "decorator_list", "msg"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_text(child):
                yield from _running(child)


def _is_left_out(node: ast.AST) -> bool:
    """Whether it declares something that no test can hold to a value."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        return name.lower() == "version" or name in _SPEED
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in _DECLARATIONS
    return isinstance(node, ast.keyword) and node.arg in _CHECKS


def _is_text(node: ast.AST) -> bool:
    """Whether it is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changed(node: ast.expr | ast.stmt) -> Iterator[ast.expr | ast.stmt]:
    match node:
        case ast.Compare(ops=[op]):
            yield _with(node, ops=[_COMPARISONS[type(op)]()])
        case ast.BinOp(op=op) if type(op) in _OPERATORS:
            yield _with(node, op=_OPERATORS[type(op)]())
        case ast.AugAssign(op=op) if type(op) in _OPERATORS:
            yield _with(node, op=_OPERATORS[type(op)]())
        case ast.BoolOp(op=op):
            yield _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield _with(node, value=not value)
        case ast.Constant(value=int(value)):
            yield _with(node, value=value + 1)
            if value:
                yield _with(node, value=value - 1)
        case ast.Constant(value=float(value)):
            yield _with(node, value=value * 1.5 if value else 0.5)
        case ast.Expr(value=ast.Call() as call) if not ast.unparse(call.func).endswith(_QUIET):
            yield ast.Pass()
        case ast.Call():
            yield from _changed_calls(node)
        case ast.Dict(keys=keys, values=values):
            for index in range(len(keys)):
                yield _with(node, keys=_without(keys, index), values=_without(values, index))


def _changed_calls(node: ast.Call) -> Iterator[ast.expr]:
    """A call of another function, with swapped arguments, or with one keyword left out."""
    if isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        yield _with(node, func=ast.Name(_FUNCTIONS[node.func.id]))
    elif len(node.args) > 1:
        first, second, *rest = node.args
        if type(first) is type(second) and ast.dump(first) != ast.dump(second):
            yield _with(node, args=[second, first, *rest])
    for index, keyword in enumerate(node.keywords):
        if keyword.arg not in _CHECKS:
            yield _with(node, keywords=_without(node.keywords, index))


def _with(node: N, **fields: object) -> N:
    found = deepcopy(node)
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def _without(items: list[T], index: int) -> list[T]:
    return [*items[:index], *items[index + 1 :]]


def _replaced(source: str, node: ast.expr | ast.stmt, after: str) -> str:
    """The source with other text in the place of a node."""
    lines = source.encode().splitlines(keepends=True)
    assert node.end_lineno is not None
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + (node.end_col_offset or 0)
    content = source.encode()
    return (content[:start] + after.encode() + content[end:]).decode()
