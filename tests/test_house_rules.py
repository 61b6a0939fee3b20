"""The rules that hold the four packages in shape: who imports whom, and what loads when."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("pgcore", "pgjax", "pgtorch", "parity")
FRAMEWORKS = {"jax", "jaxlib", "flax", "optax", "torch"}
TYPING = {"jaxtyping", "lazy_loader", "numpy"}
THIRD_PARTY = {
    "pgcore": TYPING | {"gymnasium", "matplotlib", "rich", "tyro", "safetensors"},
    "pgjax": TYPING | {"pgcore", "jax", "flax", "optax"},
    "pgtorch": TYPING | {"pgcore", "torch"},
    "parity": TYPING
    | FRAMEWORKS
    | {
        "gymnasium",
        "matplotlib",
        "pgcore",
        "pgjax",
        "pgtorch",
        "mpmath",
        "hypothesis",
        "pytest",
        "safetensors",
        "tyro",
    },
}
UNSAFE_MODULES = {
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal"),
    *("shelve", "yaml", "zipfile", "tarfile", "gzip", "bz2", "lzma", "runpy", "code"),
}
UNSAFE_CALLS = {"eval", "exec", "os.system", "os.popen"}
UNSAFE_ATTRIBUTES = {
    *("torch.load", "torch.save", "torch.package", "torch.hub", "torch.jit.load"),
    *("torch.export.load", "np.load", "numpy.load", "np.fromfile", "np.memmap"),
}
UNSAFE_OPTIONS = {"allow_pickle", "shell"}
IMPORTERS = {"import_module", "importlib.import_module", "__import__", "pkgutil.resolve_name"}
IMPORTERS |= {"importlib.util.spec_from_file_location"}
"""What imports a module by a name that need not stand in the code."""
IMPORTS_BY_NAME = {
    "parity/cli.py": "the table of commands beside it",
    "parity/convert/layers.py": "the registry of layers beside it",
    "parity/locate/command.py": "the file that a person gives to `parity where`",
    "parity/mutants/of_returns.py": "the package of a variant",
    "parity/mutation/mutate.py": "the module of a function that a person hands over",
    "parity/repro.py": "the module of a function that a person hands over",
    "parity/suite/runs.py": "the two frameworks' packages",
    "parity/traps/entries.py": "the table of modules beside it",
    "parity/traps/results.py": "the frameworks",
    "parity/traps/text.py": "the frameworks",
}
"""Where a package does, and where the name is from: nowhere out of a file that is read."""


def sources(package: str) -> Iterator[tuple[str, ast.Module]]:
    """Each file of a package, with its syntax tree."""
    for path in sorted((ROOT / package).rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in the repository's root, which must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result


# --- what a person reads


@pytest.mark.parametrize("package", PACKAGES)
def test_no_text_names_an_entry_of_a_catalogue_that_is_not_there(package):
    """Such as `B02` or `(trap G01)`: nobody who reads it has the list.

    (`parity.traps` is the list, and `parity.locate` names its entries with their titles.)
    """
    for path in sorted((ROOT / package).rglob("*.py")):
        if not {"locate", "traps"} & {*path.parts}:
            assert not re.findall(r"\b[A-H]\d{2}\b", path.read_text(encoding="utf-8")), path


# --- who imports whom


def test_the_import_contracts_hold():
    # In a process of its own, for it takes hold of the standard output.
    run_python(
        "-c", "from importlinter import cli; raise SystemExit(cli.lint_imports(no_cache=True))"
    )


def imported(tree: ast.Module) -> set[str]:
    """The modules that a file imports, wherever in it it does."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package):
    allowed = THIRD_PARTY[package] | {package} | sys.stdlib_module_names
    found = {
        f"{path} imports {name}"
        for path, tree in sources(package)
        for name in imported(tree)
        if name.partition(".")[0] not in allowed
    }
    assert found == set()


@pytest.mark.parametrize("package", ["pgcore", "pgjax", "pgtorch"])
def test_only_the_command_line_imports_the_package_as_a_whole(package):
    # Through the package's root any module can reach any other, unseen by the layers contract.
    found = {path for path, tree in sources(package) if package in imported(tree)}
    assert found <= {f"{package}/cli.py", f"{package}/__main__.py"}


BLOCK = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
package = importlib.import_module("{package}")
for module in pkgutil.walk_packages(package.__path__, "{package}."):
    if not module.name.endswith(".__main__") and not module.name.startswith({both}):
        importlib.import_module(module.name)
commands = ("check", "diff", "lockstep", "recording", "selftest")
for name in commands if "{package}" == "parity" else ():
    pkgutil.resolve_name(importlib.import_module("parity.cli").COMMANDS[name])
"""
BOTH = (
    "parity.suite.",
    "parity.mutants.",
    "parity.runs.agents",
    "parity.runs.proofs",
    "parity.runs.pictures",
)
"""Our own two implementations held together, which needs both frameworks. Their commands do not."""


@pytest.mark.parametrize(
    ("package", "blocked"),
    [
        ("pgcore", FRAMEWORKS | {"pgjax", "pgtorch", "parity"}),
        ("pgjax", {"torch", "pgtorch", "parity"}),
        ("pgtorch", {"jax", "jaxlib", "flax", "optax", "pgjax", "parity"}),
        ("parity", FRAMEWORKS),
    ],
)
def test_every_module_of_a_package_imports_where_the_other_framework_is_missing(package, blocked):
    run_python("-c", BLOCK.format(package=package, blocked=blocked, both=BOTH))


def test_a_command_whose_framework_is_missing_says_how_to_install_it(tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None; from pgtorch.cli import main; "
        f"sys.exit(main(['train', '--run-dir', {str(tmp_path / 'run')!r}]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert "pip install 'policy-gradient-parity[torch]'" in result.stderr
    assert "Traceback" not in result.stderr


# --- what loads when


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_no_framework(package):
    code = f"import json, sys, {package}; print(json.dumps(sorted(sys.modules)))"
    assert set(json.loads(run_python("-c", code).stdout)) & FRAMEWORKS == set()


HELP = [
    (c, args)
    for c in ("pgjax", "pgtorch")
    for args in ([], ["train"], ["resume"], ["eval"], ["plot"])
]
HELP += [
    ("parity", []),
    *(("parity", [c]) for c in ("convert", "diff", "power", "recording", "traps")),
]


@pytest.mark.parametrize(("command", "arguments"), HELP, ids=str)
def test_help_loads_no_framework(command, arguments):
    result = run_python("-X", "importtime", "-m", command, *arguments, "--help")
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert f"usage: {command}" in result.stdout
    assert f"{command}.cli" in loaded  # so the list is read right
    assert loaded & FRAMEWORKS == set()


LAZY = """
import importlib, inspect, pkgutil, sys

def fresh():
    for name in [name for name in sys.modules if name.partition(".")[0] == "PACKAGE"]:
        del sys.modules[name]
    return importlib.import_module("PACKAGE")

package = fresh()
public = list(package.__all__)
assert public and len(public) == len(set(public)), public
for name in public:
    assert not inspect.ismodule(getattr(package, name)), name
    assert name in dir(package), name

submodules = {module.name for module in pkgutil.iter_modules(package.__path__)}
shared = sorted(submodules & set(public))
assert EXPECTED <= set(shared), shared

def check(package, story):
    for name in shared:
        value = getattr(package, name)
        assert inspect.isfunction(value), f"after {story}, PACKAGE.{name} is {value!r}"
        module = importlib.import_module(f"PACKAGE.{name}")
        assert inspect.ismodule(module), (story, module)
        assert getattr(module, name) is value, (story, name)
        assert getattr(package, name) is value, (story, name)

for name in shared:
    for story in (
        f"import PACKAGE.{name}",
        f"from PACKAGE.{name} import {name}",
        f"from PACKAGE import {name}",
        f"import PACKAGE.cli, PACKAGE.{name} as module",
    ):
        package = fresh()
        exec(story, {})
        check(package, story)
for name in public:
    package = fresh()
    getattr(package, name)
    check(package, f"PACKAGE.{name}")
"""


@pytest.mark.parametrize("package", ["pgcore", "pgjax", "pgtorch"])
def test_the_public_names_resolve_in_any_order_and_functions_win_over_files(package):
    # `train` and `rollout` are both a function and the file it is in: importing the file binds it
    # on the package, and the function must win all the same.
    expected = set() if package == "pgcore" else {"train", "rollout"}
    run_python("-c", LAZY.replace("PACKAGE", package).replace("EXPECTED", repr(expected)))


# --- what the code may not do


def jitted(tree: ast.Module) -> list[int]:
    """Lines that decorate a definition with `jit`, or bind a module's name to something jitted."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found += [d.lineno for d in node.decorator_list if _mentions_jit(d)]
    for node in tree.body:
        if (
            isinstance(node, ast.Assign | ast.AnnAssign)
            and node.value
            and _mentions_jit(node.value)
        ):
            found.append(node.lineno)
    return found


def _mentions_jit(node: ast.AST) -> bool:
    names = {getattr(n, "attr", None) or getattr(n, "id", None) for n in ast.walk(node)}
    return bool(names & {"jit", "pjit", "filter_jit"})


def test_nothing_in_pgjax_is_jitted_for_its_caller_but_draws_as_those_of_jax_random_are():
    assert {path for path, tree in sources("pgjax") if jitted(tree)} == {"pgjax/threefry.py"}


def unsafe(tree: ast.Module) -> list[str]:
    """What in a file could run code that it read: pickles, eval, exec, torch.load."""
    found = [name for name in imported(tree) if name.partition(".")[0] in UNSAFE_MODULES]
    for node in ast.walk(tree):
        is_call = isinstance(node, ast.Call) and ast.unparse(node.func) in UNSAFE_CALLS
        is_name = isinstance(node, ast.Attribute) and ast.unparse(node) in UNSAFE_ATTRIBUTES
        is_flag = isinstance(node, ast.keyword) and node.arg in UNSAFE_OPTIONS
        if is_call or is_name or is_flag:
            found.append(ast.unparse(node))
    return found


def by_name(tree: ast.Module) -> list[str]:
    """The imports of a file whose module's name is not written there."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        ast.unparse(call)
        for call in calls
        if ast.unparse(call.func) in IMPORTERS and not isinstance(call.args[0], ast.Constant)
    ]


def test_nothing_is_imported_by_a_name_out_of_a_file():
    found = {path for package in PACKAGES for path, tree in sources(package) if by_name(tree)}
    assert found == IMPORTS_BY_NAME.keys()


PROGRAMS = "pgjax/programs.py"
"""Reads back the machine code that it wrote, from where the user alone can write."""


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_runs_code_that_it_reads(package):
    found = {path: names for path, tree in sources(package) if (names := unsafe(tree))}
    assert found == ({PROGRAMS: ["pickle"]} if package == "pgjax" else {})


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (jitted, "@jax.jit\ndef f(x): ..."),
        (jitted, "@partial(jax.jit, static_argnums=0)\ndef f(x): ..."),
        (jitted, "class A:\n    @jit\n    def f(self): ..."),
        (jitted, "f = jax.jit(g)"),
        (unsafe, "import pickle"),
        (unsafe, "def f():\n    from pickle import loads"),
        (unsafe, "eval('1')"),
        (unsafe, "exec('1')"),
        (unsafe, "torch.load(path)"),
        (unsafe, "np.load(path)"),
        (unsafe, "numpy.lib.format.read_array(file, allow_pickle=True)"),
        (unsafe, "torch.jit.load(path)"),
        (unsafe, "subprocess.run(text, shell=True)"),
        (unsafe, "import yaml"),
        (by_name, "importlib.import_module(name)"),
        (by_name, "__import__(name)"),
    ],
)
def test_the_rules_above_see_a_breach(rule, code):
    assert rule(ast.parse(code))


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (jitted, "def f(x):\n    return jax.jit(x)"),
        (unsafe, "module.eval()"),
        (unsafe, "json.load(file)"),
        (by_name, "importlib.import_module('torch')"),
    ],
)
def test_the_rules_above_let_good_code_pass(rule, code):
    assert not rule(ast.parse(code))


# --- what the files may not say

MACHINE_PATH = re.compile(r"(?<![\w./~}*-])/(?:home|root|work|tmp|opt|mnt|srv|Users)/\w")
FOLDERS = (*PACKAGES, "benchmarks", "docs", "examples", "scripts", "tests")
TEXT = {".py", ".pyi", ".toml", ".txt", ".md", ".yaml", ".yml", ".json", ".csv", ".cfg", ".sh", ""}


def project_files() -> Iterator[Path]:
    for name in ("*", ".ci/*", ".github/**/*", *[f"{folder}/**/*" for folder in FOLDERS]):
        for path in ROOT.glob(name):
            if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts:
                yield path


def test_no_file_names_a_path_of_one_machine():
    found = {
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in project_files()
        for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8"))
    }
    assert found == set()


@pytest.mark.parametrize("folder", ["home/someone", "root/x", "tmp/x", "work/main"])
def test_a_path_of_one_machine_is_seen(folder):
    assert MACHINE_PATH.search(f'path = "/{folder}"')
    assert not MACHINE_PATH.search(f"https://example.org/{folder}")


# --- what the tests rely on


def test_shapes_are_checked_while_the_tests_run():
    import jax.numpy as jnp
    import torch
    from jaxtyping import TypeCheckError

    import pgjax
    import pgtorch

    with pytest.raises(TypeCheckError):
        pgjax.episode_returns(jnp.zeros((3, 2)), jnp.zeros((3, 4), bool))
    with pytest.raises(TypeCheckError):
        pgtorch.episode_returns(torch.zeros((3, 2)), torch.zeros((3, 4), dtype=torch.bool))
