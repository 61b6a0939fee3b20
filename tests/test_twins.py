"""`pgjax` and `pgtorch` stay twins: same files, same public names, order, parameters and defaults.

Sources are compared, not types: each framework has its own.
"""

import ast
import importlib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Parameter(NamedTuple):
    name: str
    kind: str
    default: str | None
    """The default's source, or None where there is none."""


def outline(source: str) -> list[tuple[str, object]]:
    """A module's public names in order, each with what its callers rely on."""
    entries: list[tuple[str, object]] = []
    for node in ast.parse(source).body:
        if isinstance(node, Function):
            entries.append((node.name, parameters(node)))
        elif isinstance(node, ast.ClassDef):
            entries.append((node.name, class_outline(node)))
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            entries += [(name, literal(node.value)) for name in names]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            entries.append((node.target.id, literal(node.value)))
    return [(name, shape) for name, shape in entries if not name.startswith("_")]


def parameters(function: Function) -> list[Parameter]:
    """The parameters that a caller gives (not `self`)."""
    args = function.args
    positional = [*args.posonlyargs, *args.args]
    padding = [None] * (len(positional) - len(args.defaults))
    found = [
        Parameter(arg.arg, "positional", default and ast.unparse(default))
        for arg, default in zip(positional, [*padding, *args.defaults], strict=True)
    ]
    if args.vararg:
        found.append(Parameter(args.vararg.arg, "*", None))
    found += [
        Parameter(arg.arg, "keyword", default and ast.unparse(default))
        for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)
    ]
    if args.kwarg:
        found.append(Parameter(args.kwarg.arg, "**", None))
    return [parameter for parameter in found if parameter.name not in ("self", "cls")]


def class_outline(node: ast.ClassDef) -> tuple[list[Parameter], dict[str, list[Parameter]]]:
    """What a class is made from, and its public methods.

    A field of a NamedTuple, a dataclass or a Flax module is a parameter like one of `__init__`.
    A network's methods belong to its framework (`forward`, `__call__`) and are left out.
    """
    methods = {item.name: parameters(item) for item in node.body if isinstance(item, Function)}
    fields = [
        Parameter(item.target.id, "positional", item.value and ast.unparse(item.value))
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]
    made_from = methods.get("__init__", fields)
    if any(ast.unparse(base).endswith("Module") for base in node.bases):
        return made_from, {}
    return made_from, {name: p for name, p in methods.items() if not name.startswith("_")}


def literal(value: ast.expr | None) -> object:
    """A constant's value where it is a literal; what a framework computes is its own."""
    try:
        return value and ast.literal_eval(value)
    except ValueError:
        return "computed"


def files(package: str) -> set[str]:
    folder = ROOT / package
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*.py*") if path.suffix != ".pyc"
    }


JAX_ALONE = {"fast.py", "fast_rollout.py", "heads.py", "programs.py", "threefry.py"}
"""The fast path, which has the plain one beside it for a twin (and `tests/parity/test_fast.py`)."""


def test_the_twins_have_the_same_files_but_for_the_fast_path():
    assert files("pgjax") - files("pgtorch") == JAX_ALONE
    assert files("pgtorch") <= files("pgjax")


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name in files("pgjax") | files("pgtorch")
        if name.endswith(".py") and "__" not in name and name not in JAX_ALONE
    ),
)
def test_a_file_and_its_twin_have_the_same_public_names_in_the_same_order(name):
    jax_side = outline((ROOT / "pgjax" / name).read_text(encoding="utf-8"))
    torch_side = outline((ROOT / "pgtorch" / name).read_text(encoding="utf-8"))
    assert [name for name, _ in jax_side] == [name for name, _ in torch_side]
    assert jax_side == torch_side


@pytest.mark.parametrize("package", ["", ".envs"])
def test_the_twins_export_the_same_names(package):
    jax_side = importlib.import_module(f"pgjax{package}").__all__
    torch_side = importlib.import_module(f"pgtorch{package}").__all__
    assert list(jax_side) == list(torch_side)


MODEL = """
LIMIT = 1e-5
table = make()
def f(a, b=1, *rest, c=None, **options): ...
class Pair(NamedTuple):
    first: int
    second: float = 2.0
    def swap(self, twice=False): ...
class Net(Module):
    size: int
    depth: int = 2
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1e-5", "1e-6"),
        ("LIMIT", "BOUND"),
        ("a, b=1", "a, b=2"),
        ("a, b=1", "a, b"),
        ("a, b=1", "b, a=1"),
        ("a, b=1", "x, b=1"),
        ("c=None", "c=0"),
        ("*rest, c=None", "c=None, *rest"),
        (", **options", ""),
        ("first: int\n    second: float = 2.0", "second: float = 2.0\n    first: int"),
        ("second: float = 2.0", "second: float"),
        ("twice=False", "twice=True"),
        ("    def swap(self, twice=False): ...\n", ""),
        ("depth: int = 2", "depth: int = 3"),
        ("def f(", "def g(a): ...\ndef f("),
        (
            "table = make()\ndef f(a, b=1, *rest, c=None, **options): ...",
            "def f(a, b=1, *rest, c=None, **options): ...\ntable = make()",
        ),
    ],
)
def test_an_outline_sees_a_twin_drift(old, new):
    assert MODEL.count(old) == 1
    assert outline(MODEL) != outline(MODEL.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("make()", "make_otherwise()"),
        ("first: int", "first: Tensor"),
        ("def f(", "def _private(a): ...\ndef f("),
        ("    size: int\n    depth: int = 2", "    def __init__(self, size, depth=2): ..."),
    ],
)
def test_an_outline_leaves_a_framework_its_own_ways(old, new):
    assert MODEL.count(old) == 1
    assert outline(MODEL) == outline(MODEL.replace(old, new))
