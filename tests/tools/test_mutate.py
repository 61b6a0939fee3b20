"""`parity.mutate`: which wrong variants there are, and that each is one."""

import ast
import functools
import inspect
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import parity
from parity.mutation import KINDS
from parity.mutation.edits import Code
from parity.mutation.mutations import mutations
from parity.mutation.sites import sites
from pgcore.errors import UsageError

ROOT = Path(__file__).parent.parent.parent


def variants(expression: str, kind: str) -> set[str]:
    """What mutants of one kind make of `return EXPRESSION`."""
    text = f"def f():\n    return {expression}\n"
    lines = [each.source.splitlines()[1] for each in mutations(text, "f.py", [kind])]
    return {line.removeprefix("    return ") for line in lines}


@pytest.mark.parametrize(
    ("kind", "expression", "expected"),
    [
        ("operators", "a + b", {"a - b"}),
        ("operators", "a * (b + c)", {"a / (b + c)", "a * (b - c)"}),
        ("operators", "c / a ** b", {"c * a ** b", "c / (a * b)"}),
        ("operators", "a @ b", {"a * b"}),
        ("operators", "-a", {"a"}),
        ("operators", "not a", {"a"}),
        ("operators", "a < b", {"a >= b"}),
        ("operators", "a is not b", {"a is  b"}),
        ("operators", "a and b", {"(a or b)"}),
        ("operators", "'%d' % a + 'b'", set()),
        ("constants", "f(0, 1, 7)", {"f(1, 1, 7)", "f(0, 0, 7)", "f(0, 1, 8)"}),
        ("constants", "a + 1e-08", {"a + 1e-07"}),
        ("constants", "a * 0.5", {"a * 0.25"}),
        ("constants", "f(True)", {"f(False)"}),
        ("constants", "f(reduction='mean')", {"f(reduction='sum')"}),
        ("axes", "x.sum(axis=0)", {"x.sum(axis=1)", "x.sum(axis=-1)", "x.sum()"}),
        ("axes", "x.mean(-1)", {"x.mean(0)", "x.mean(-2)"}),
        ("axes", "jnp.sum(x, 1)", {"jnp.sum(x, 2)", "jnp.sum(x, 0)"}),
        ("axes", "f(x, keepdims=True)", {"f(x, keepdims=False)"}),
        ("axes", "f(x, axis=(0, 1))", {"f(x, axis=(1,))", "f(x, axis=(0,))", "f(x)"}),
        ("reductions", "x.mean()", {"x.sum()"}),
        ("reductions", "jnp.std(x)", {"jnp.var(x)"}),
        ("reductions", "max(a, b)", {"min(a, b)"}),
        ("reductions", "mean(a)", set()),  # nobody knows of a function `sum` there
        ("reductions", "jax.nn.logsumexp(x, axis=1)", {"x.max(axis=1)"}),
        ("reductions", "torch.logsumexp(x, 1)", {"torch.amax(x, 1)"}),
        ("reductions", "F.softmax(x, 1)", {"F.log_softmax(x, 1)"}),
        ("arguments", "f(a, b, c)", {"f(b, a, c)", "f(a, c, b)"}),
        ("arguments", "a - (b + c)", {"(b + c) - (a)"}),
        ("arguments", "a / (b + c)", {"(b + c) / a"}),
        ("arguments", "a, b", {"b, a"}),
        ("arguments", "jnp.maximum(a, b)", set()),
        ("arguments", "a - a", set()),
        ("calls", "2 * relu(a + b)", {"2 * (a + b)"}),
        ("calls", "x.detach()", {"x"}),
        ("calls", "jnp.clip(x, 0, 1)", {"x"}),
        ("calls", "len(x)", set()),
        ("off-by-one", "x[1:]", {"x[:]", "x[2:]"}),
        ("off-by-one", "x[:-1]", {"x[:]", "x[:-2]"}),
        ("off-by-one", "x[0]", {"x[1]"}),
        ("off-by-one", "range(n)", {"range(n - 1)", "range(1, n)"}),
        ("off-by-one", "range(a, b, 2)", {"range(a + 1, b, 2)", "range(a, b - 1, 2)"}),
        ("off-by-one", "range(*a)", set()),
        (
            "off-by-one",
            "fori_loop(0, n, f, x)",
            {"fori_loop(1, n, f, x)", "fori_loop(0, n - 1, f, x)"},
        ),
        ("off-by-one", "a <= b", {"a < b"}),
        ("branches", "a if c else b", {"a if True else b", "a if False else b"}),
        ("branches", "where(c, a, b)", {"where(c, b, a)", "where(c, a, a)", "where(c, b, b)"}),
        ("branches", "[a for a in b if c]", {"[a for a in b if True]"}),
        ("keywords", "f(a, b=1, c=2)", {"f(a, c=2)", "f(a, b=1)"}),
        ("keywords", "f(b=1)", {"f()"}),
    ],
)
def test_a_kind_makes_what_it_says_and_nothing_else(kind, expression, expected):
    def plain(lines):
        return {ast.dump(ast.parse(line)) for line in lines}

    assert plain(variants(expression, kind)) == plain(expected)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("with torch.no_grad():", {"if True:"}),
        ("with (no_grad()):  # why: so", {"if True:  # why: so"}),
        ("with a(), b() as x, c:", {"with b() as x, c:", "with a(), b() as x:"}),
        ("with (\n        a as y,\n        b,\n    ):", {"with a as y:"}),
        ("with f() as file:", set()),
        ("with (y := f()), b:", {"with (y := f()):", "with b:"}),
    ],
)
def test_a_with_is_left_out_unless_its_name_is_needed(header, expected):
    text = f"def f(p):\n    {header}\n        x = 1\n        g = 2\n    return x\n"
    made = {each.source for each in mutations(text, "f.py", ["calls"])}
    assert made == {text.replace(header, other) for other in expected}


def test_an_async_with_stays_one():
    text = "async def f(p):\n    async with a, b:\n        x = 1\n"
    made = {each.source.splitlines()[1].strip() for each in mutations(text, "f.py", ["calls"])}
    assert made == {"async with a:", "async with b:"}


def test_what_no_grad_held_back_is_differentiated_without_it():
    mutants = parity.mutate(frozen, kinds=["calls"])
    (mutant,) = (each for each in mutants if "no_grad" in each.summary)
    assert mutant.summary == "with torch.no_grad() is left out"
    x = torch.ones(1, requires_grad=True)
    assert frozen(x).requires_grad is False
    assert mutant(x).requires_grad is True


def frozen(x):
    with torch.no_grad():
        doubled = 2 * x
    return doubled


def test_a_statement_is_left_out():
    text = "def f(optimizer):\n    optimizer.zero_grad()\n    return 2\n"
    assert [m.source for m in mutations(text, "f.py", ["calls"])] == [
        "def f(optimizer):\n    pass\n    return 2\n"
    ]


def test_what_people_read_and_what_changes_nothing_is_left_alone():
    text = '''
import logging
def f(x: "list[1 + 1]", n: int = 3) -> "1 + 2":
    """Adds 1 + 1."""
    from a import b
    print(x + 1)
    logging.info("n", n + 1)
    assert f, f"not {n + 1}"
    if x:
        raise ValueError(f"x is {x + 1}, not " + str(n - 1))
    y: "1 + 1" = f"{x + 2}"
    return range(0, x[0:n])
'''
    changed = {m.summary for m in mutations(text, "f.py")}
    assert changed == {
        "3 becomes 4",
        "the condition is True",
        "the condition is False",
        "0 becomes 1",
        "x[0:n] becomes x[0:n] - 1",
        "0 becomes 1 in [0:n]",
        "n is left out of [0:n]",
        "n becomes n - 1 in [0:n]",
        "0 and x[0:n] change places",
    }


def test_equal_variants_are_one():
    text = "def f(x):\n    return x + 0, x[0], x * 1\n"
    sources = [m.source for m in mutations(text, "f.py")]
    assert len(sources) == len(set(sources))
    assert not any("x - 0" in each or "x / 1" in each for each in sources)


@pytest.mark.parametrize("file", ["pgtorch/returns.py", "pgjax/rollout.py", "parity/arrays.py"])
def test_every_change_is_python_again_that_reads_otherwise(file):
    text = (ROOT / file).read_text("utf-8")
    code, right, number = Code(text), ast.dump(ast.parse(text)), 0
    for site in sites(ast.parse(text)):
        for make in KINDS.values():
            for change in make(site.node, code):
                number += 1
                assert ast.dump(ast.parse(code.edited(change.edits))) != right, change.summary
    assert number > 50


# --- variants to be called


def discounted(rewards, discount=0.5):
    following, returns = 0.0, []
    for reward in reversed(rewards):
        following = reward + discount * following
        returns.append(following)
    return returns[::-1]


def scores(values):
    """Like the article's, µ and σ of a population."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [(value - mean) / math.sqrt(variance) for value in values]


def clipped(x, low=-1.0, high=1.0):
    if x < low:
        return low
    return high if x > high else x


CORPUS = [
    (discounted, [([1.0, 0.0, 2.0],), ([1.0, 3.0], 0.25)]),
    (scores, [([1.0, 2.0, 4.0, 9.0],)]),
    (clipped, [(-1.5,), (-1.0,), (0.25,), (1.0,), (1.5,)]),
]
EQUIVALENT = {
    "scores:arguments:3.20/2": "(mean - value) squared is (value - mean) squared",
    "clipped:off-by-one:1.8": "at the bound either branch is the bound",
    "clipped:off-by-one:3.20": "at the bound either branch is the bound",
}


@pytest.mark.parametrize(("fn", "inputs"), CORPUS, ids=lambda value: getattr(value, "__name__", ""))
def test_every_mutant_but_known_equivalents_differs_on_some_input(fn, inputs):
    def results(function):
        found = []
        for arguments in inputs:
            try:
                found.append(function(*arguments))
            except (TypeError, ZeroDivisionError, ValueError, OverflowError) as error:
                found.append(type(error))
        return found

    mutants = parity.mutate(fn)
    assert len(mutants) >= 8
    same = {m.id.partition(".py:")[2] for m in mutants if results(m) == results(fn)}
    assert same == {name for name in EQUIVALENT if name.startswith(f"{fn.__name__}:")}


@jax.jit
def normalized(x):
    return (x - jnp.mean(x)) / (jnp.std(x) + 1e-6)


def factorial(n):
    return 1 if n == 0 else n * factorial(n - 1)


class Base:
    def value(self):
        return 1


class Counter(Base):
    step = 2

    def __init__(self, start=3):
        self.start = start

    def value(self):
        return super().value() + self.start + self.step

    @staticmethod
    def twice(x):
        return 2 * x

    @classmethod
    def double_step(cls):
        return 2 * cls.step


def made(scale):
    def scaled(x, n=1):
        return x * scale if n < 1 else scaled(x, n - 1) + 1

    return scaled


def only(fn, summary):
    (found,) = [each for each in parity.mutate(fn) if each.summary == summary]
    return found


def test_a_decorated_function_stays_decorated():
    mutant = only(normalized, "std becomes var")
    assert type(mutant.fn) is type(normalized)
    x = np.array([1.0, 2.0, 5.0], "float32")
    expected = jax.jit(lambda x: (x - x.mean()) / (x.var() + 1e-6))(x)
    np.testing.assert_array_equal(mutant(x), expected)


def test_a_function_that_calls_itself_calls_its_variant():
    assert only(factorial, "* becomes /")(3) == 3 / (2 / (1 / 1))
    assert factorial(3) == 6


def test_methods_are_of_their_class_and_bound_to_their_object():
    found = [m() for m in parity.mutate(Counter(5).value) if m.summary == "+ becomes -"]
    assert found == [1 + 5 - 2, 1 - 5 + 2]


def test_methods_of_every_sort():
    assert only(Counter.twice, "2 becomes 3")(5) == 15
    assert only(Counter.double_step, "2 becomes 3")() == 6
    assert only(Counter.__init__, "3 becomes 4").fn.__defaults__ == (4,)
    (mutant,) = [m for m in parity.mutate(Counter) if m.summary == "3 becomes 4"]
    assert mutant().value() == 1 + 4 + 2


def test_a_closure_keeps_its_variables_and_calls_its_variant():
    scaled = made(10)
    assert scaled(1, 2) == 12
    assert only(scaled, "+ becomes -")(1, 2) == 8
    assert all("def made" not in m.diff.partition("@@")[0] for m in parity.mutate(scaled))


def test_the_file_is_as_it_was_and_ids_do_not_hang_on_what_is_above():
    text = Path(__file__).read_text("utf-8")
    ids = [mutant.id for mutant in parity.mutate(discounted)]
    assert len(ids) == len(set(ids))
    assert ids == [mutant.id for mutant in parity.mutate(discounted)]
    assert Path(__file__).read_text("utf-8") == text
    name = ids[0].partition(":")[0]
    below = [m.id for m in mutations(f"# one line more\n{text}", name)]
    assert set(ids) <= set(below)


def test_a_diff_is_the_changed_line_and_a_traceback_shows_it():
    mutant = only(discounted, "+ becomes -")
    assert "-        following = reward + discount * following" in mutant.diff
    assert "+        following = reward - discount * following" in mutant.diff
    changed = [line for line in mutant.diff.splitlines()[2:] if line[0] in "+-"]
    assert len(changed) == 2
    assert "reward - discount" in inspect.getsource(mutant.fn)


def test_kinds_are_chosen():
    assert {m.kind for m in parity.mutate(discounted, kinds=["operators"])} == {"operators"}


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (len, "a function of C"),
        (np.add, "of type ufunc"),
        (lambda x: x, "a lambda"),
        (functools.partial(discounted, discount=1.0), "give its .func"),
        (Counter(), "the class of an object"),
        (3, "of type int"),
        (functools.lru_cache(made(1)), "decorated inside of a function"),
    ],
)
def test_what_has_no_variants_is_refused_by_name(fn, said):
    with pytest.raises(UsageError, match=said):
        parity.mutate(fn)


@pytest.mark.parametrize(("kinds", "said"), [(["operator"], "did you mean"), ([], "is empty")])
def test_kinds_that_do_not_exist_are_refused(kinds, said):
    with pytest.raises(UsageError, match=said):
        parity.mutate(discounted, kinds=kinds)
