"""All mutants of the functions of one source text, each different from every other."""

import ast
import difflib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from parity.mutation.edits import Change, Code, Edit
from parity.mutation.kinds import KINDS
from parity.mutation.sites import Site, sites


@dataclass(frozen=True)
class Mutation:
    """One wrong variant of a source text.

    Attributes:
        id: `FILE:FUNCTION:KIND:LINE.COLUMN`, the line counted from the function's own, so that an
            edit elsewhere in the file leaves it as it is; `/2` for the second one there.
        file: The file, as the diff shows it.
        function: The innermost function that it changes, as `Class.method` or `outer.inner`.
        kind: One of `KINDS`.
        line: The line in the file, from 1.
        summary: What is wrong, in a few words.
        definition_line: The line of the function's `def`.
        code: The whole source text.
        edits: What is changed in it.
    """

    id: str
    file: str
    function: str
    kind: str
    line: int
    summary: str
    definition_line: int
    code: Code
    edits: tuple[Edit, ...]

    @cached_property
    def source(self) -> str:
        """The whole source text with the mistake in it."""
        return self.code.edited(self.edits)

    @property
    def diff(self) -> str:
        """A unified diff from the right source to the wrong one."""
        old, new = self.code.text.splitlines(), self.source.splitlines()
        lines = difflib.unified_diff(old, new, self.file, self.file, lineterm="", n=2)
        return "\n".join(lines)


def mutations(text: str, file: str, kinds: Collection[str] = tuple(KINDS)) -> Iterator[Mutation]:
    """The mutants of every function in a source text, in its order.

    Left out are those that read, once written in one way, like the original or like an earlier one.

    Args:
        text: A whole module.
        file: Its name, for the diffs and ids.
        kinds: Names of kinds.

    Raises:
        SyntaxError: The text is no Python.
    """
    code = Code(text)
    used: Counter[str] = Counter()
    for statement in ast.parse(text).body:
        before, after = code.start(statement), code.end(statement)
        seen = {_meaning(code.between(before, after))}
        for site in sites(ast.Module([statement], [])):
            for kind, change in _changes(site, code):
                # Only this statement is read anew: a whole module for each mutant takes long.
                moved = [Edit(e.start - before, e.end - before, e.text) for e in change.edits]
                changed = Code(code.between(before, after)).edited(tuple(moved))
                meaning = _meaning(changed)
                if meaning is None or meaning in seen:
                    continue
                seen.add(meaning)
                if kind not in kinds:
                    continue
                start = min(edit.start for edit in change.edits)
                line = code.line(start)
                column = start - code.start_of_line(line)
                first = site.definition.lineno
                key = f"{file}:{site.function}:{kind}:{line - first}.{column}"
                used[key] += 1
                yield Mutation(
                    id=key if used[key] == 1 else f"{key}/{used[key]}",
                    file=file,
                    function=site.function,
                    kind=kind,
                    line=line,
                    summary=change.summary,
                    definition_line=first,
                    code=code,
                    edits=change.edits,
                )


def _changes(site: Site, code: Code) -> Iterator[tuple[str, Change]]:
    for kind, make in KINDS.items():
        for change in make(site.node, code):
            yield kind, change


def _meaning(text: str) -> str | None:
    """A text that is equal for sources that do the same by the rules of `_Plain`."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return None
    return ast.dump(_Plain().visit(tree))


class _Plain(ast.NodeTransformer):
    """Writes in one way what can be written in several: x + 0, x * 1, x[0:], range(0, n)."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        right = node.right.value if isinstance(node.right, ast.Constant) else None
        if right is not None and not isinstance(right, str | bytes | bool):
            if right == 0 and isinstance(node.op, ast.Add | ast.Sub):
                return node.left
            if right == 1 and isinstance(node.op, ast.Mult | ast.Div | ast.Pow):
                return node.left
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        inner = node.operand
        if isinstance(node.op, ast.UAdd) or (isinstance(inner, ast.Constant) and inner.value == 0):
            return inner if not isinstance(node.op, ast.Not | ast.Invert) else node
        return node

    def visit_Slice(self, node: ast.Slice) -> ast.AST:
        self.generic_visit(node)
        plain = {"lower": 0, "step": 1}
        for name, default in plain.items():
            bound = getattr(node, name)
            if isinstance(bound, ast.Constant) and bound.value in (default, None):
                setattr(node, name, None)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "range" and len(node.args) == 2:
            first = node.args[0]
            if isinstance(first, ast.Constant) and first.value == 0:
                node.args = node.args[1:]
        return node


def is_of(mutation: Mutation, function: str) -> bool:
    """Whether a mutant is of `function`, a class's name standing for all of its methods."""
    return mutation.function == function or mutation.function.startswith(f"{function}.")
