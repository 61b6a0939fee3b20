"""The catalogue of traps: each entry measured, its committed tables, and causes found in it."""

import ast
import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from benchmarks import environments, results
from benchmarks import traps as bench
from parity import cli, traps
from parity.locate.causes import SIGNATURES
from parity.locate.signatures import clues
from parity.sides import arithmetic, rounding, rounding_directions, x64
from parity.traps import committed, text
from parity.traps.entries import Entry, agreement, pair, trap, warning
from parity.traps.families import FAMILIES
from parity.traps.results import MEASURED_WITH, measured
from parity.traps.rule import readable, verdict
from pgcore.errors import UsageError

ROOT = Path(__file__).parent.parent.parent
IDS = [*traps.catalogue()]


@pytest.fixture(scope="module")
def found():
    """All entries, measured once."""
    return traps.run()


def agrees(a, b, **options):
    return verdict(readable(a), readable(b), **options)


# --- the entries


@pytest.mark.parametrize("id", IDS)
def test_an_entry_is_as_it_claims_and_as_in_the_committed_table(found, id):
    result = found[id]
    assert result.verdict is not None, result.reason
    if committed.is_of_installed(committed.nearest()):  # other versions may differ elsewhere
        assert result.ok, result
        kept = committed.nearest().results[id]
        assert (result.verdict, result.remedy_holds) == (kept["verdict"], kept["remedy_holds"])
        assert traps.moved({id: result}) == []


def as_kept(table: traps.Table, id: str) -> traps.Result:
    """What was measured when the table was made."""
    kept = {name: value for name, value in table.results[id].items() if name != "ok"}
    return traps.Result(**kept)


@pytest.mark.parametrize("name", committed.NAMES)
def test_every_entry_of_a_committed_table_is_as_it_claims_of_these_versions(name):
    table = traps.tables()[name]
    for id, entry in traps.catalogue().items():
        result = as_kept(table, id)
        assert result.kind == entry.kind_with(table.versions)
        assert (result.ok, table.results[id]["ok"]) == (True, True), result
        assert "NOT as a" not in text.line(result)
        assert traps.moved({id: result}, table) == []


def test_there_are_entries_of_every_family_and_their_numbers_follow_one_another():
    assert len(IDS) >= 80
    for letter in FAMILIES:
        numbers = [int(id[1:]) for id in IDS if id[0] == letter]
        assert numbers == [*range(1, len(numbers) + 1)]


def test_no_number_is_that_of_two_entries():
    written = [
        node.args[0].value
        for path in sorted((ROOT / "parity" / "traps").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("trap", "warning", "agreement")
        and isinstance(node.args[0], ast.Constant)
    ]
    assert sorted(written) == IDS


def test_an_entry_that_has_a_remedy_shows_its_code_and_its_values(found):
    for id, entry in traps.catalogue().items():
        source = entry.source
        assert source.sides.keys() == found[id].values.keys()
        assert entry.explanation
        assert entry.remedy
        assert source.mended.keys() <= source.sides.keys()
        assert bool(source.mended) == (entry.kind == "trap") == bool(found[id].mended)


def test_the_committed_tables_have_every_entry_and_the_versions_that_they_are_named_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    written = [*project["dependencies"], *project["optional-dependencies"]["torch"]]
    ranges = {each.name: each.specifier for each in map(Requirement, written)}
    pins = dict(re.findall(r"^([\w-]+)==(.+)$", environments.constraints("pinned"), re.MULTILINE))
    tables = traps.tables()
    assert [*tables] == ["newest", "pinned", "lowest"]
    for table in tables.values():
        assert [*table.results] == IDS
        assert [*table.versions] == ["python", *MEASURED_WITH]
        assert table.versions["python"] in SpecifierSet(project["requires-python"])
        for name in {*MEASURED_WITH} - {"jaxlib"}:
            assert table.versions[name] in ranges[name], name
    for name in MEASURED_WITH:
        assert Version(tables["pinned"].versions[name]).public == pins[name]
        found = [Version(each.versions[name]) for each in tables.values()]
        assert found == sorted(found, reverse=True)
    for each in map(Requirement, environments.lowest()):
        if each.name in MEASURED_WITH:
            assert tables["lowest"].versions[each.name] in each.specifier
        assert each.name == "jaxlib" or f">={next(iter(each.specifier)).version}" in str(
            ranges[each.name]
        )
    assert tables["newest"].versions["jax"].startswith("0.11.")  # the last before the upper end
    assert "<0.12" in str(ranges["jax"])


def test_the_pages_tables_are_those_of_the_committed_results():
    assert results.table_in(bench.PAGE, "traps: versions") == bench.versions_table()
    for letter in FAMILIES:
        assert results.table_in(bench.PAGE, f"traps: {letter}") == bench.family_table(letter)


# --- the rule


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (np.ones(3), np.ones(3), "agree"),
        (np.ones(3), np.ones(3) + 0.9e-11, "agree"),
        (np.ones(3), np.ones(3) + 1.1e-11, "differ"),
        (np.array([1.0, 1e-20]), np.array([1.0, -1e-20]), "agree"),
        (np.float32([1.0]), np.float32([1 + 15 * 2**-23]), "agree"),
        (np.float32([1.0]), np.float32([1 + 17 * 2**-23]), "differ"),
        (np.float32([1.0]), np.array([1 + 15 * 2.0**-23]), "agree"),
        (np.ones((3, 1)), np.ones(3), "differ"),
        (np.array([np.nan, 1.0]), np.array([0.0, 1.0]), "differ"),
        (np.array([np.nan, 1.0]), np.array([np.nan, 1.0]), "both NaN"),
        (np.array([np.nan, 1.0]), np.array([np.nan, 2.0]), "differ"),
        (np.array([np.nan, 1.0]), np.array([1.0, np.nan]), "differ"),
        (np.array([np.inf]), np.array([np.inf]), "agree"),
        (np.array([np.inf]), np.array([-np.inf]), "differ"),
        (np.array([np.inf]), np.array([1.0]), "differ"),
        (np.array(2**40), np.array(2**40 + 1), "differ"),
        (np.array([1, 2]), np.array([1.0, 2.0]), "agree"),
        (np.array(True), np.array(False), "differ"),
        (np.array([1 + 2j]), np.array([1 - 2j]), "differ"),
        ("raises", "raises", "agree"),
        ("raises", np.zeros(1), "differ"),
        ({"a": np.ones(1), "b": np.array(np.nan)}, {"a": np.ones(1), "b": np.array(np.nan)},
         "both NaN"),
        ({"a": np.ones(1), "b": np.zeros(1)}, {"a": np.ones(1), "b": np.ones(1)}, "differ"),
        ({"a": np.ones(1)}, {"b": np.ones(1)}, "differ"),
        (["x", "y"], ["y", "x"], "differ"),
    ],
)  # fmt: skip
def test_two_values_agree_entry_by_entry_of_equal_shapes_and_nan_with_nothing(a, b, expected):
    assert agrees(a, b) == expected
    assert agrees(b, a) == expected


def test_held_to_the_last_bit_the_neighbour_of_a_number_differs():
    assert agrees(np.ones(1), np.nextafter(np.ones(1), 2)) == "agree"
    assert agrees(np.ones(1), np.nextafter(np.ones(1), 2), exact=True) == "differ"
    assert agrees(np.ones(1), np.ones(1), exact=True) == "agree"


# --- entries that are not as they claim


def made(kind, **sides) -> Entry:
    """An entry whose number is that of a real one."""

    def function():
        return pair(**sides)

    return kind("B01", "made for a test", "none")(function)


@pytest.mark.parametrize(
    ("entry", "reported"),
    [
        (made(trap, torch=1.0, jax=2.0, mended={"jax": 1.0}), True),
        (made(trap, torch=1.0, jax=2.0, mended={"jax": 2.0}), False),  # the remedy does nothing
        (made(trap, torch=1.0, jax=2.0, mended={"jax": np.nan}), False),
        (made(trap, torch=np.nan, jax=2.0, mended={"jax": np.nan}), False),  # NaN is no agreement
        (made(trap, torch=np.nan, jax=np.nan, mended={"jax": 1.0, "torch": 1.0}), True),
        (made(trap, torch=1.0, jax=1.0, mended={"jax": 1.0}), False),  # nothing differs
        (made(trap, torch=1.0, jax=2.0), False),  # there is no remedy to run
        (made(warning, torch=1.0, jax=2.0), True),
        (made(warning, torch=1.0, jax=1.0), False),
        (made(agreement, torch=1.0, jax=1.0), True),
        (made(agreement, torch=1.0, jax=2.0), False),
        (made(agreement, torch=np.nan, jax=np.nan), False),
    ],
)
def test_an_entry_that_is_not_as_it_claims_is_reported(entry, reported):
    result = measured(entry)
    assert result.ok is reported
    assert ("NOT as a" in text.line(result)) is not reported


def test_a_missing_interface_is_not_measurable_and_no_crash():
    @trap("B01", "made for a test", "none")
    def gone(torch):
        """There is no such function."""
        return pair(torch=torch.no_such_function(), jax=1.0, mended={"jax": 1.0})

    result = measured(gone)
    assert result.verdict is None
    assert not result.ok
    assert "no_such_function" in result.reason
    [move] = traps.moved({"B01": result})
    assert "not measurable here" in str(move)
    assert "no_such_function" in str(move)
    assert "no_such_function" in text.shown(gone, result)


def test_an_entry_has_two_sides_and_mends_no_other():
    with pytest.raises(ValueError, match="two sides"):
        pair(torch=1.0)
    with pytest.raises(ValueError, match="two sides"):
        pair(torch=1.0, jax=1.0, mended={"flax": 1.0})


# --- what has moved


def as_measured(**changed):
    """A real result, changed."""
    return measured(traps.catalogue()["B01"])._replace(**changed)


@pytest.mark.parametrize(
    ("changed", "now"),
    [
        ({"verdict": "agree"}, "agree"),
        ({"verdict": "both NaN"}, "both NaN, mended"),
        ({"verdict": None}, "not measurable here"),
        ({"remedy_holds": False}, "differ, and the remedy does not hold"),
    ],
)
def test_another_verdict_is_a_move_and_gives_the_exit_code_1(changed, now, monkeypatch, capsys):
    result = as_measured(**changed)
    assert [move.id for move in traps.moved({"B01": result})] == ["B01"]
    monkeypatch.setattr("parity.traps.results.measured", lambda entry: result)
    assert cli.main(["traps", "run", "--only", "B01"]) == 1
    assert f"B01: was differ, mended, and is {now}\n" in capsys.readouterr().out
    assert cli.main(["traps", "run", "--only", "B01", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert not said["ok"]
    assert [move["id"] for move in said["moved"]] == ["B01"]


def test_another_value_is_no_move():
    assert traps.moved({"B01": as_measured(values={"torch": 1.0, "jax": 7.0})}) == []


def test_a_table_without_the_entry_is_a_move():
    table = traps.Table("empty", {}, {})
    assert "was not there" in str(traps.moved({"B01": as_measured()}, table)[0])


def test_the_table_of_the_installed_versions_is_the_one_that_is_compared_with(monkeypatch):
    for table in traps.tables().values():
        monkeypatch.setattr(committed, "versions", lambda table=table: dict(table.versions))
        assert committed.nearest() == table
        assert committed.is_of_installed(table)


@pytest.mark.parametrize(
    ("jax_version", "torch_version", "others", "expected"),
    [
        ("0.11.0", "2.14.1", {}, "newest"),
        ("0.11.2", "2.11.0", {}, "newest"),  # jax decides before torch
        ("0.10.2", "2.14.1", {}, "pinned"),
        ("0.10.9", "2.11.3+cu130", {}, "lowest"),
        (
            "0.10.2",
            "2.12.0",
            {"flax": "0.12.0", "optax": "0.2.5"},
            "pinned",
        ),  # of equals, the newer
        ("9.9", "9.9", {}, "newest"),
        ("0.1.2", "2.1.3", {}, "newest"),  # 0.1 is not 0.11, and 2.1 not 2.11
    ],
)
def test_of_other_versions_the_nearest_table_is_taken(
    jax_version, torch_version, others, expected, monkeypatch
):
    found = {"flax": "0.12.99", "optax": "0.2.99", **others}
    found |= {"jax": jax_version, "torch": torch_version}
    monkeypatch.setattr(committed, "versions", lambda: found)
    assert committed.nearest().name == expected
    assert not committed.is_of_installed(committed.nearest())


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("0.10.2", "trap"),
        ("0.11", "agreement"),
        ("0.11.0rc1", "agreement"),
        ("0.9.99", "trap"),  # numbers, not texts
        ("0.11.2", "agreement"),
        ("1.0", "agreement"),
    ],
)
def test_a_trap_that_ends_with_a_release_is_an_agreement_from_it_on(version, kind):
    ending = trap("B01", "made for a test", "none", before="jax 0.11")(lambda: pair(a=1, b=1))
    assert ending.kind_with({"jax": version, "torch": "9.9"}) == kind
    assert ending.named == "made for a test (before jax 0.11)"


def test_a_trap_that_has_ended_is_told_as_an_agreement():
    both = {"torch": 1.0, "jax": 1.0, "mended": {"jax": 1.0}}
    ending = replace(made(trap, **both), before="jax 0.10")
    result = measured(ending)
    assert (result.kind, result.verdict, result.remedy_holds) == ("agreement", "agree", True)
    assert result.ok
    assert "NOT as" not in text.line(result)
    assert "mended" not in text.line(result)
    said = text.shown(replace(traps.catalogue()["B01"], before="jax 0.10"), result)
    assert "(before jax 0.10)" in said
    assert "agreement: believed to be a trap, or one before a release" in said
    assert not measured(replace(ending, before="jax 99")).ok  # its time is not over: it should part
    assert not measured(replace(made(trap, **(both | {"jax": 2.0})), before="jax 0.10")).ok
    lost = both | {"mended": {"jax": 2.0}}
    assert not measured(replace(made(trap, **lost), before="jax 0.10")).ok


# --- nothing outside matters, and all is put back


def test_what_is_set_outside_neither_matters_nor_is_lost(found):
    some = ["A01", "B02", "C08", "D01", "E01", "E10", "F01", "F07", "G01"]
    direction = rounding_directions()[0]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with rounding(direction), arithmetic(flush=True), x64(True), torch.no_grad():
        torch.set_default_dtype(torch.float64)
        try:
            again = traps.run(some)
            assert torch.get_default_dtype() == torch.float64
            assert not torch.is_grad_enabled()
            assert jnp.zeros(1, float).dtype == jnp.float64
            assert (torch.tensor(2.0**-126, dtype=torch.float32) * 0.5).item() == 0
            assert _rounds_otherwise()
        finally:
            torch.set_default_dtype(torch.float32)
    assert not jax.config.jax_enable_x64
    assert (torch.get_rng_state() == before).all()
    assert again == {id: found[id] for id in some}


def _rounds_otherwise() -> bool:
    one = np.ones(1)
    to_nearest = (one + 2.0**-54 == 1).all() and (one - 2.0**-55 == 1).all()
    return not to_nearest


# --- the command


def test_the_list_has_every_number_and_title(capsys):
    assert cli.main(["traps"]) == 0
    said = capsys.readouterr().out
    for id, entry in traps.catalogue().items():
        assert f"{id}  {entry.title}" in said
    assert cli.main(["traps", "list", "--json"]) == 0
    assert [row["id"] for row in json.loads(capsys.readouterr().out)["traps"]] == IDS


def test_show_has_the_code_the_values_and_the_remedy(capsys):
    assert cli.main(["traps", "show", "b01"]) == 0
    said = capsys.readouterr().out
    entry = traps.catalogue()["B01"]
    for part in (entry.title, entry.explanation, "remedy: jnp.std(x, ddof=1)", "-> differ"):
        assert part in said
    assert "torch: torch.tensor(ROWS).std()\n    = 3.0957" in said
    assert "jax: jnp.array(ROWS).std()\n    = 2.68095" in said
    assert "jax: jnp.array(ROWS).std(ddof=1)\n    = 3.0957" in said


def test_a_run_of_some_says_what_it_compared_with(capsys):
    assert cli.main(["traps", "run", "--only", "h, b01"]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^([A-H]\d\d) ", said, re.MULTILINE) == [
        "B01",
        *[f"H0{i}" for i in range(1, 8)],
    ]
    assert "8 measured in" in said
    assert "nothing has moved" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show", "Z99"], "id is 'Z99'"),
        (["show", "C4"], "C04"),
        (["show", "gelu"], "did you mean E01"),
        (["run", "--only", ""], "id is ''"),
        (["run", "--only", "B01,B99"], "id is 'B99'"),
    ],
)
def test_what_is_not_usable_gives_the_exit_code_2(arguments, expected, capsys):
    assert cli.main(["traps", *arguments]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("given", [[], [3], [None], "B99", ["A01", "??"]])
def test_ids_that_are_none_are_refused(given):
    with pytest.raises(UsageError, match="accepted"):
        traps.run(given)


# --- one place for titles and remedies


def test_the_matcher_takes_its_titles_and_remedies_from_the_catalogue():
    for signature in SIGNATURES:
        if not signature.trap.startswith("R"):
            entry = traps.catalogue()[signature.trap]
            assert (signature.title, signature.remedy) == (entry.title, entry.remedy)


def test_every_number_in_the_matchers_code_is_in_the_catalogue_and_comes_with_no_title():
    folder = Path(clues.__file__).parent
    named = set()
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and re.fullmatch(r"[A-H]\d\d", str(node.value)):
                named.add(node.value)
            if isinstance(node, ast.Call | ast.Tuple):
                parts = node.args if isinstance(node, ast.Call) else node.elts
                texts = [p.value for p in parts if isinstance(p, ast.Constant)]
                numbers = [t for t in texts if re.fullmatch(r"[A-H]\d\d", str(t))]
                assert not numbers or len(texts) == 1, (path, texts)
    assert named >= {"B01", "E06", "A12"}
    assert named <= {*IDS}


# --- from a difference to its cause

RETURNS = np.random.default_rng(0).normal(size=50)
CENTRED = RETURNS - RETURNS.mean()


def test_two_arrays_are_explained():
    in_torch, in_jax = CENTRED / RETURNS.std(ddof=1), CENTRED / RETURNS.std()
    inputs, code = {"returns": RETURNS}, "x / returns.std()"
    found = traps.match(torch.tensor(in_torch), jnp.array(in_jax), inputs=inputs, code=code)
    assert found.first is None  # jnp.array rounds it to float32 here, which hides it
    assert "float32" in str(found)
    found = traps.match(torch.tensor(in_torch), in_jax, inputs=inputs, code=code)
    assert found.differing == ("value",)
    assert found.first is not None
    assert found.first.trap == "B01"
    assert traps.catalogue()["B01"].remedy in str(found)
    assert found.first.evidence in str(found)


def test_arrays_by_name_are_explained_each_by_its_own():
    loss = float((CENTRED**2).mean())
    found = traps.match(
        {"loss": loss, "errors": CENTRED**2, "same": RETURNS},
        {"loss": loss, "errors": 0.5 * CENTRED**2, "same": RETURNS},
        code="squared error: optax.l2_loss, mse_loss",
    )
    assert found.differing == ("errors",)
    assert found.first is not None
    assert found.first.trap == "E04"


def test_equal_arrays_need_no_cause_and_strange_ones_have_none():
    assert str(traps.match(RETURNS, RETURNS)) == "nothing differs"
    found = traps.match(RETURNS, np.cos(37 * RETURNS))
    assert found.first is None
    assert "no known trap explains it" in str(found)


def test_nan_on_both_sides_is_a_difference():
    broken = np.array([1.0, np.nan])
    assert traps.match(broken, broken).differing == ("value",)


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ({"a": RETURNS}, {"b": RETURNS}, "candidate has the names b, accepted are .* a"),
        ({}, {}, "at least one"),
        ("text", RETURNS, "reference has at 'value' a value of type str"),
        (RETURNS, None, "candidate has at 'value'"),
        ({"a": [[1.0], [1.0, 2.0]]}, {"a": RETURNS}, "reference has at 'a' what is no array"),
    ],
)
def test_what_can_not_be_matched_is_refused(reference, candidate, expected):
    with pytest.raises(UsageError, match=expected):
        traps.match(reference, candidate)
