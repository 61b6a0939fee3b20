"""Where in a function a mistake would matter: not in what people read, nor in types."""

import ast
from collections.abc import Iterator
from typing import NamedTuple

Definition = ast.FunctionDef | ast.AsyncFunctionDef
MESSAGES = {"print", "warn", "warning", "debug", "info", "error", "exception", "critical", "log"}
"""Calls whose arguments are text for a person, as functions or on what LOGGERS names."""
LOGGERS = {"logging", "logger", "log", "warnings", "console"}


class Site(NamedTuple):
    """A node that can be wrong.

    Attributes:
        node: It.
        function: The innermost function that it is in, as `Class.method` or `outer.inner`.
        definition: That function's definition.
    """

    node: ast.AST
    function: str
    definition: Definition


def sites(tree: ast.AST, prefix: str = "") -> Iterator[Site]:
    """Every node of every function below `tree`, parents first, in the order of the text."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, Definition):
            yield from _inside(child, f"{prefix}{child.name}")
        elif isinstance(child, ast.ClassDef):
            yield from sites(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from sites(child, prefix)


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Every function below `tree` with its name, those inside of others too."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, Definition | ast.ClassDef):
            if isinstance(child, Definition):
                yield f"{prefix}{child.name}", child
            yield from definitions(child, f"{prefix}{child.name}.")
        else:
            yield from definitions(child, prefix)


def _inside(definition: Definition, name: str) -> Iterator[Site]:
    arguments = definition.args
    for default in (*arguments.defaults, *(each for each in arguments.kw_defaults if each)):
        yield from _below(default, name, definition)
    for statement in definition.body:
        yield from _below(statement, name, definition)


def _below(node: ast.AST, name: str, definition: Definition) -> Iterator[Site]:
    if isinstance(node, Definition):
        yield from _inside(node, f"{name}.{node.name}")
        return
    if isinstance(node, ast.ClassDef):
        yield from sites(node, f"{name}.{node.name}.")
        return
    if _is_read_by_people(node):
        return
    yield Site(node, name, definition)
    for child in _children(node):
        yield from _below(child, name, definition)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Assert):
        yield node.test
    elif isinstance(node, ast.AnnAssign):
        yield from (node.target, *([node.value] if node.value else []))
    elif isinstance(node, ast.Lambda):
        yield from (*node.args.defaults, node.body)
    elif isinstance(node, ast.match_case):
        yield from (*([node.guard] if node.guard else []), *node.body)
    else:
        yield from ast.iter_child_nodes(node)


def _is_read_by_people(node: ast.AST) -> bool:
    """A docstring, an error, a formatted text, a line of a log; an import, for it is no value."""
    if isinstance(node, ast.Expr):
        node = node.value
        if isinstance(node, ast.Constant):
            return True
    if isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Attribute):
            owner = ast.unparse(function.value).rpartition(".")[2].lower().lstrip("_")
            return function.attr in MESSAGES and owner in LOGGERS
        return isinstance(function, ast.Name) and function.id in {"print", "warn"}
    return isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom)
