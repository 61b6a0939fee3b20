"""What a person's source says at a line: its statement, and the numbers and names in it."""

import ast
import linecache
from collections.abc import Iterator, Sequence
from functools import cache
from types import CodeType

from parity.locate.factories import Mark
from parity.locate.places import Location, line_of, span


def return_of(code: CodeType) -> Location | None:
    """The last `return` of the function with this code."""
    node = _function(code)
    returns = [each for each in ast.walk(node) if isinstance(each, ast.Return)] if node else []
    if not returns:
        return None
    return line_of(code, max(each.lineno for each in returns))


def first_statement(code: CodeType) -> Location | None:
    """The first line of a function's body, behind its docstring."""
    node = _function(code)
    if node is None:
        return None
    has_docstring = ast.get_docstring(node) is not None and len(node.body) > 1
    return line_of(code, node.body[1 if has_docstring else 0].lineno)


def _function(code: CodeType) -> ast.FunctionDef | None:
    for node in ast.walk(_tree(code.co_filename)):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first == code.co_firstlineno:
                return node
    return None


def named_in(code: CodeType, name: str) -> Location | None:
    """The last line of a function on which something gets a name: a key, or an argument's."""
    node = _function(code)
    lines = [
        each.lineno
        for inner in (ast.walk(node) if node else ())
        for each in (*(getattr(inner, "keys", ()) or ()), *getattr(inner, "keywords", ()))
        if getattr(each, "value" if isinstance(inner, ast.Dict) else "arg", None) == name
    ]
    return line_of(code, max(lines)) if lines else None


def statement(mark: Mark) -> str:
    """The text of the whole statement at a mark, on one line."""
    file, line = mark[0].co_filename, span(mark).line
    found = _statement(file, line)
    if found is None:
        return linecache.getline(file, line).strip()
    lines = [each.strip() for each in _text(file)[found[0] - 1 : found[1]]]
    return " ".join(lines)


def numbers_at(mark: Mark) -> set[float]:
    """The numbers that are written in the statement at a mark."""
    return {value for node in statement_nodes(mark) if (value := _number(node)) is not None}


def names_at(mark: Mark) -> set[str]:
    """The names that are used in the statement at a mark."""
    return {node.id for node in statement_nodes(mark) if isinstance(node, ast.Name)}


def statement_nodes(mark: Mark) -> Iterator[ast.AST]:
    """All nodes of the statement at a mark; of a compound one its head."""
    file, line = mark[0].co_filename, span(mark).line
    for node in _smallest(file, line):
        yield from ast.walk(node)


def defaults(mark: Mark) -> list[tuple[str, float, int]]:
    """The numbers by default of the function that a mark is in: parameter, number, line."""
    node = _function(mark[0])
    if node is None:
        return []
    positional = [*node.args.posonlyargs, *node.args.args]
    pairs = [
        *zip(positional[::-1], node.args.defaults[::-1], strict=False),
        *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
    ]
    return [
        (argument.arg, value, default.lineno)
        for argument, default in pairs
        if default is not None and (value := _number(default)) is not None
    ]


def constants(file: str) -> list[tuple[str, float, int]]:
    """The numbers that have a name at the top of a file: name, number, line."""
    found = []
    for node in _tree(file).body:
        targets, value = [], None
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        number = None if value is None else _number(value)
        if number is not None:
            found += [(t.id, number, node.lineno) for t in targets if isinstance(t, ast.Name)]
    return found


def _number(node: ast.AST) -> float | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    value = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(file: str) -> Sequence[str]:
    return [line.rstrip("\n") for line in linecache.getlines(file)]


@cache
def _parsed(file: str, text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:  # a notebook's cell with commands in it
        return ast.Module([], [])


def _tree(file: str) -> ast.Module:
    return _parsed(file, "".join(linecache.getlines(file)))


def _smallest(file: str, line: int) -> list[ast.AST]:
    """The smallest statement that holds a line; the head alone of one that holds others."""
    best: ast.stmt | None = None
    for node in ast.walk(_tree(file)):
        if not isinstance(node, ast.stmt) or not node.lineno <= line <= (node.end_lineno or 0):
            continue
        if best is None or node.lineno >= best.lineno:
            best = node
    if best is None:
        return []
    body = getattr(best, "body", None)
    if not body:
        return [best]
    return [each for each in ast.iter_child_nodes(best) if not isinstance(each, ast.stmt)]


def _statement(file: str, line: int) -> tuple[int, int] | None:
    found = [node for node in _smallest(file, line) if hasattr(node, "lineno")]
    if not found:
        return None
    starts = [node.lineno for node in found]  # pyright: ignore[reportAttributeAccessIssue]
    ends = [node.end_lineno or 0 for node in found]  # pyright: ignore[reportAttributeAccessIssue]
    return min(starts), max(ends)
