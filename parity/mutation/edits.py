"""Edits of source text: what a mutant changes, and nothing around it.

A mutant is text in which a few spans are replaced, rather than a syntax tree written out anew, so
that its diff shows one line and its formatting and comments are the user's own. Offsets are those
of `ast`: columns count bytes of UTF-8.
"""

import ast
from typing import NamedTuple

ATOMS = (
    ast.Name,
    ast.Constant,
    ast.Call,
    ast.Attribute,
    ast.Subscript,
    ast.List,
    ast.Dict,
    ast.Set,
    ast.ListComp,
    ast.DictComp,
    ast.SetComp,
)
"""Expressions that bind tighter than any operator."""


class Edit(NamedTuple):
    """The bytes from `start` to `end` become `text`."""

    start: int
    end: int
    text: str


class Change(NamedTuple):
    """One systematic mistake.

    Attributes:
        node: The part of the syntax tree that is wrong then.
        summary: It in a few words.
        edits: How the text changes.
    """

    node: ast.AST
    summary: str
    edits: tuple[Edit, ...]


class Code:
    """A source text, in which nodes of its syntax tree are looked up and replaced."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._bytes = text.encode()
        self._lines = [0]
        for line in self._bytes.split(b"\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)

    def start(self, node: ast.AST) -> int:
        """Where a node begins, in bytes. (A definition begins at its decorators.)"""
        nodes = [*getattr(node, "decorator_list", ()), node]
        first = min(nodes, key=lambda each: each.lineno)
        offset = self._lines[first.lineno - 1] + first.col_offset
        return offset if first is node else self._bytes.rindex(b"@", 0, offset)

    def end(self, node: ast.AST) -> int:
        """Where a node ends, in bytes."""
        assert isinstance(node, ast.expr | ast.stmt | ast.keyword)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._lines[node.end_lineno - 1] + node.end_col_offset

    def between(self, start: int, end: int) -> str:
        """The text from byte `start` to byte `end`."""
        return self._bytes[start:end].decode()

    def of(self, node: ast.AST) -> str:
        """The text of a node, without the brackets that may be around it."""
        return self.between(self.start(node), self.end(node))

    def atom(self, node: ast.AST) -> str:
        """The text of a node, in brackets where an operator beside it could tear it apart."""
        return self.of(node) if isinstance(node, ATOMS) else f"({self.of(node)})"

    def line(self, offset: int) -> int:
        """The line in which a byte is, from 1."""
        return self._bytes.count(b"\n", 0, offset) + 1

    def start_of_line(self, line: int) -> int:
        """Where a line begins, in bytes."""
        return self._lines[line - 1]

    def replace(self, node: ast.AST, text: str) -> tuple[Edit, ...]:
        """A node becomes `text`."""
        return (Edit(self.start(node), self.end(node), text),)

    def replace_between(self, left: ast.AST, right: ast.AST, old: str, new: str) -> tuple[Edit]:
        """The sign `old` between two nodes becomes `new`."""
        start, end = self.end(left), self.start(right)
        return (Edit(start, end, self.between(start, end).replace(old, new, 1)),)

    def swap(self, left: ast.AST, right: ast.AST, *, operands: bool = False) -> tuple[Edit, ...]:
        """Two nodes change places."""
        text = self.atom if operands else self.of
        return (*self.replace(left, text(right)), *self.replace(right, text(left)))

    def drop_argument(self, call: ast.Call, dropped: ast.AST) -> tuple[Edit, ...]:
        """A call loses one of its arguments, with a comma that stood beside it."""
        arguments = sorted([*call.args, *call.keywords], key=self.start)
        place = arguments.index(dropped)  # pyright: ignore[reportArgumentType]
        if place > 0:
            return (Edit(self.end(arguments[place - 1]), self.end(dropped), ""),)
        if len(arguments) > 1:
            return (Edit(self.start(dropped), self.start(arguments[1]), ""),)
        return (Edit(self.start(dropped), self.end(dropped), ""),)

    def edited(self, edits: tuple[Edit, ...]) -> str:
        """The text after all of these edits, which do not overlap."""
        data = self._bytes
        for edit in sorted(edits, reverse=True):
            data = data[: edit.start] + edit.text.encode() + data[edit.end :]
        return data.decode()
