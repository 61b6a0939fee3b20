"""Wrong operators, constants, bounds and conditions."""

import ast
import math
from collections.abc import Iterator

from parity.mutation.edits import Change, Code, Edit

BINARY: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "//"),
    ast.MatMult: ("@", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "|"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
"""What is written, and what is written in its place."""
REBUILT = (ast.Pow, ast.BitAnd, ast.BitOr, ast.BitXor)
"""Their place in the order of operators is another than that of what takes it."""
COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", ">="),
    ast.LtE: ("<=", ">"),
    ast.Gt: (">", "<="),
    ast.GtE: (">=", "<"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.In: ("in", "not in"),
}
BOUNDS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
}
WORDS = {"mean": "sum", "sum": "mean"}
"""Constants that name a reduction."""
SMALL = 0.01
"""A number up to this is an ε or a step size: half of it would hardly matter."""


def operators(node: ast.AST, code: Code) -> Iterator[Change]:
    """`+` for `-`, `*` for `/`, `and` for `or`, a comparison negated, a sign left out."""
    if isinstance(node, ast.BinOp) and not _is_text(node.left) and not _is_text(node.right):
        old, new = BINARY[type(node.op)]
        if isinstance(node.op, REBUILT):
            edits = code.replace(node, f"({code.atom(node.left)} {new} {code.atom(node.right)})")
        else:
            edits = code.replace_between(node.left, node.right, old, new)
        yield Change(node, f"{old} becomes {new}", edits)
    elif isinstance(node, ast.AugAssign) and not _is_text(node.value):
        old, new = BINARY[type(node.op)]
        edits = code.replace_between(node.target, node.value, f"{old}=", f"{new}=")
        yield Change(node, f"{old}= becomes {new}=", edits)
    elif isinstance(node, ast.Compare):
        yield from _compared(node, code, COMPARISONS)
    elif isinstance(node, ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        text = f" {new} ".join(code.atom(each) for each in node.values)
        yield Change(node, f"{old} becomes {new}", code.replace(node, f"({text})"))
    elif isinstance(node, ast.UnaryOp) and literal(node) is None:
        sign = {ast.USub: "-", ast.UAdd: "+", ast.Invert: "~", ast.Not: "not"}[type(node.op)]
        edits = code.replace(node, code.atom(node.operand))
        yield Change(node, f"{sign} is left out", edits)


def constants(node: ast.AST, code: Code) -> Iterator[Change]:
    """0 for 1, n + 1 for n, a small number ten times as large, another one halved, False for True,
    `"sum"` for `"mean"`; a number's sign changed.
    """
    value = literal(node)
    if isinstance(value, str):
        if value in WORDS:
            yield _becomes(node, code, repr(WORDS[value]))
    elif isinstance(value, bool):
        yield _becomes(node, code, str(not value))
    elif isinstance(value, int):
        yield _becomes(node, code, str(0 if value == 1 else value + 1))
    elif isinstance(value, float) and math.isfinite(value):
        if value in (0.0, 1.0):
            other = 1.0 - value
        else:
            other = value * 10 if abs(value) <= SMALL else value / 2
        yield _becomes(node, code, f"{other:.12g}" if other % 1 else f"{other:.1f}")
    if isinstance(node, ast.UnaryOp) and value is not None:
        yield _becomes(node, code, code.atom(node.operand))


def off_by_one(node: ast.AST, code: Code) -> Iterator[Change]:
    """A slice's bound left out or moved by one, the next index, a step fewer of a `range` at its
    end or its beginning, `<=` for `<`.
    """
    if isinstance(node, ast.Subscript):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for part in parts:
            value = literal(part)
            if isinstance(part, ast.Slice):
                yield from _sliced(part, code)
            elif isinstance(value, int) and not isinstance(value, bool):
                yield _becomes(part, code, str(value - 1 if value < 0 else value + 1))
    elif isinstance(node, ast.Call) and name_of(node) in ("range", "arange", "fori_loop"):
        if len(node.args) == 1 and not isinstance(node.args[0], ast.Starred):
            stop = code.of(node.args[0])
            begins_later = code.replace(node.args[0], f"1, {stop}")
            yield Change(node, f"{name_of(node)}({stop}) begins at 1", begins_later)
        for place, argument in enumerate(node.args[:2]):
            last = place == len(node.args[:2]) - 1
            if isinstance(argument, ast.Starred):
                break
            new = shifted(argument, code, -1 if last else 1)
            yield Change(node, f"{code.of(argument)} becomes {new}", code.replace(argument, new))
    elif isinstance(node, ast.Compare):
        yield from _compared(node, code, BOUNDS)


def branches(node: ast.AST, code: Code) -> Iterator[Change]:
    """A condition that always holds, or never; the two sides of `where` exchanged, or one for
    both.
    """
    if isinstance(node, ast.If | ast.IfExp):
        for value in ("True", "False"):
            yield Change(node, f"the condition is {value}", code.replace(node.test, value))
    elif isinstance(node, ast.While):
        yield Change(node, "the loop is never entered", code.replace(node.test, "False"))
    elif isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield Change(test, "nothing is left out", code.replace(test, "True"))
    elif isinstance(node, ast.Call) and name_of(node) in ("where", "select", "cond"):
        values = [each for each in node.args if not isinstance(each, ast.Starred)]
        if len(values) == len(node.args) and len(values) >= 3:
            name = name_of(node)
            swapped = code.swap(values[1], values[2])
            yield Change(node, f"the branches of {name} are exchanged", swapped)
            for kept, lost in ((values[1], values[2]), (values[2], values[1])):
                summary = f"{name} gives {code.of(kept)} either way"
                yield Change(node, summary, code.replace(lost, code.of(kept)))


def literal(node: ast.AST) -> object:
    """The value of a constant, or of a number with a sign; `None` of anything else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = literal(node.operand)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value
    return None


def name_of(call: ast.Call) -> str:
    """The last part of what is called: `mean` of `jnp.mean(x)` and of `x.mean()`."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def shifted(node: ast.AST, code: Code, by: int) -> str:
    """An expression for one more, or one less, than a node."""
    value = literal(node)
    if isinstance(value, int):
        return str(value + by)
    return f"{code.atom(node)} {'+' if by > 0 else '-'} 1"


def _becomes(node: ast.AST, code: Code, new: str) -> Change:
    return Change(node, f"{code.of(node)} becomes {new}", code.replace(node, new))


def _compared(
    node: ast.Compare, code: Code, table: dict[type[ast.cmpop], tuple[str, str]]
) -> Iterator[Change]:
    values = (node.left, *node.comparators)
    for left, operator, right in zip(values, node.ops, values[1:], strict=False):
        if isinstance(operator, ast.IsNot | ast.NotIn) and table is COMPARISONS:
            edits = code.replace_between(left, right, "not", "")
            new = "in"
            if isinstance(operator, ast.IsNot):
                new = "is"
            yield Change(node, f"not is left out of {new}", edits)
        elif type(operator) in table:
            old, new = table[type(operator)]
            edits = code.replace_between(left, right, old, new)
            yield Change(node, f"{old} becomes {new}", edits)


def _sliced(part: ast.Slice, code: Code) -> Iterator[Change]:
    old = code.of(part)
    for bound in (part.lower, part.upper, part.step):
        if bound is None:
            continue
        left_out = code.replace(bound, "")
        yield Change(part, f"{code.of(bound)} is left out of [{old}]", left_out)
        if bound is not part.step:
            new = shifted(bound, code, 1 if bound is part.lower else -1)
            edits: tuple[Edit, ...] = code.replace(bound, new)
            yield Change(part, f"{code.of(bound)} becomes {new} in [{old}]", edits)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or isinstance(literal(node), str | bytes)
