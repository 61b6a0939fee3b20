"""The benchmarks' statistics, and that the pages' tables are those of the committed results."""

import json

import numpy as np
import pytest
from scipy.stats import binom, permutation_test

from benchmarks import (
    alike,
    checkpoint_formats,
    demo,
    determinism,
    draws,
    drift,
    fast_pieces,
    growth,
    learning,
    lockstep_pieces,
    many_seeds,
    power,
    results,
    throughput,
    where_ports,
)
from benchmarks import lockstep as lockstep_runs
from benchmarks import lockstep_tables as lockstep
from benchmarks.reliability import __main__ as reliability
from benchmarks.reliability.rows import Try, tally
from parity.runs import rank_test
from parity.tolerance import MOST_NUDGES
from pgcore.config import TrainConfig
from pgcore.errors import UsageError
from tests.depth import IS_DEEP

PAGE = "docs/learning.md"


def test_the_permutation_tests_p_value_is_that_of_scipy():
    rng = np.random.default_rng(0)
    shifts = np.array([0.0, 0.3, 0.6, 0.9])
    ours, theirs = rng.normal(size=(30, 4)) + shifts, rng.normal(size=(30, 4))
    found = alike.p_values(ours, theirs, rng)
    expected = permutation_test(
        (ours, theirs),
        lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
        vectorized=True,
        n_resamples=alike.NUM_PERMUTATIONS,
        rng=np.random.default_rng(1),
    ).pvalue
    assert expected.min() < 0.01 < 0.3 < expected.max()
    # Both are shares of 10,000 draws; scipy's two-sided p is twice the smaller tail, which adds
    # the tails' own noise: 5 standard deviations of the difference.
    deviation = np.sqrt(expected * (1 - expected) / alike.NUM_PERMUTATIONS)
    assert (np.abs(found - expected) <= 5 * np.sqrt(3) * deviation + 2e-4).all()


def test_the_test_alarms_as_seldom_as_it_says_where_nothing_differs():
    rng = np.random.default_rng(0)
    ours, theirs = rng.exponential(size=(2, 30, 1000))
    num_alarms = int(np.sum(alike.p_values(ours, theirs, rng) < alike.LEVEL))
    assert num_alarms <= binom.ppf(1 - 1e-6, 1000, alike.LEVEL)


def test_what_would_have_been_found_is_found_that_often_and_a_smaller_ratio_is_not():
    # Normal, so that the power is known: the two-sided z test at level α finds a shift d of means
    # with deviation s = sqrt(2 / 30) about as often as Φ(d / s − z). It is 0.9 at d = s(z + 1.28),
    # 0.9986 for α = 0.01; RATIOS are steps of 0.02 and the test is t-like, a little less powerful.
    rng = np.random.default_rng(0)
    pool = rng.normal(size=60)
    pool = (pool - pool.mean()) / pool.std() * 0.3
    shift = np.log(alike.detectable(pool, rng))
    expected = 0.3 * np.sqrt(2 / 30) * (2.576 + 1.282)
    assert 0.95 * expected <= shift <= 1.15 * expected


def test_a_run_that_was_not_solved_counts_with_the_whole_budget():
    solved = [100_000, 110_000, 120_000] * 10
    unsolved = [None] * 30
    assert alike.judge({"pgjax": solved, "pgtorch": solved}).p_value == 1
    verdict = alike.judge({"pgjax": unsolved, "pgtorch": solved})
    assert verdict.p_value < alike.LEVEL
    assert 4 < verdict.ratio < 5


def test_the_readmes_table_is_that_of_the_committed_result():
    assert results.table_in("README.md", "demo") == demo.table(demo.read_rows())


def test_the_table_of_both_frameworks_is_that_of_the_committed_result():
    steps = results.load("alike")["steps"]
    verdicts = {agent: alike.judge(sides) for agent, sides in steps.items()}
    assert results.table_in(PAGE, "alike") == alike.table(steps, verdicts)
    for agent, recorded in results.load("alike")["verdicts"].items():
        # Another processor may round logarithms otherwise, by parts in 1e16.
        assert verdicts[agent]._asdict() == pytest.approx(recorded, rel=1e-12)


def test_the_learning_tables_are_those_of_the_committed_result():
    defaults, settings = learning.read_results()
    assert results.table_in(PAGE, "learning: defaults") == learning.defaults_table(defaults)
    assert results.table_in(PAGE, "learning: settings") == learning.settings_table(settings)


def test_the_figures_that_are_promised_hold_in_the_committed_result():
    """50 of 50 within 500,000 steps, medians at most 150,000 and 200,000, kept policies at 465."""
    defaults, _ = learning.read_results()
    for agent, limit in (("reinforce", 150_000), ("reparam", 200_000)):
        for framework, num_seeds in (("pgjax", 50), ("pgtorch", 5)):
            seeds = defaults[agent][framework]
            assert [seed.seed for seed in seeds] == list(range(num_seeds))
            assert not any(map(learning.falls_short, seeds))
        assert np.median([seed.env_steps for seed in defaults[agent]["pgjax"]]) <= limit


def test_the_power_pages_tables_are_those_of_the_committed_results():
    variants, examples = results.load("power"), results.load("false_alarms")
    assert results.table_in(power.PAGE, "power: kinds") == power.summary_table(variants)
    assert results.table_in(power.PAGE, "power: variants") == power.variants_table(variants)
    assert results.table_in(power.PAGE, "power: equivalents") == power.equivalents_table(variants)
    assert results.table_in(power.PAGE, "power: false alarms") == power.examples_table(examples)


def test_the_committed_results_are_of_todays_variants_and_all_hold():
    from parity.mutants import VARIANTS
    from parity.mutants.power import full_name
    from parity.suite.families import families

    variants, examples = results.load("power"), results.load("false_alarms")
    assert [each["name"] for each in variants["variants"]] == [*map(full_name, VARIANTS)]
    assert all(each["caught"] is not each["equivalent"] for each in variants["variants"])
    assert [stage["name"] for stage in examples["stages"]] == [f.name for f in families()]
    assert examples["examples"] >= 100_000
    assert examples["failures"] == []


def test_the_table_of_located_faults_is_that_of_the_committed_result():
    rows = results.load("where_ports")["ports"]
    assert results.table_in(where_ports.PAGE, where_ports.TABLE) == where_ports.table_of(rows)
    assert not any(row["blamed"] for row in rows.values())


@pytest.mark.parametrize("part", lockstep.PAGES)
def test_the_lockstep_pages_tables_are_those_of_the_committed_result(part):
    table = lockstep.TABLES[part](results.load("lockstep"))
    for page in lockstep.PAGES[part]:
        assert results.table_in(page, f"lockstep: {part}") == table


def test_every_update_of_every_full_run_passed_the_gate():
    rows = results.load("lockstep")["resync"]
    runs = {(row["agent"], row["episodes"], row["seed"]) for row in rows}
    assert len(runs) == len(rows) == 20
    assert all(row["ok"] and not row["failures"] for row in rows)
    page = " ".join((results.ROOT / "docs/lockstep.md").read_text(encoding="utf-8").split())
    for agent, seed in (("reinforce", 1), ("reparam", 1)):
        (fell_back,) = (
            r for r in rows if (r["agent"], r["episodes"], r["seed"]) == (agent, 1, seed)
        )
        assert f"made {fell_back['updates']:,}" in page
    (before,) = (row["failed_before"] for row in rows if "failed_before" in row)
    assert f"by factors of 1.1 to {before['closest']}" in page
    *others, last = (f"{number:,}" for number in before["from"])
    assert f"the thousand from {', '.join(others)} and {last} on" in page
    assert "error 5.91e-14, bound 5.43e-14" in before["failures"][0]
    # A run that was not solved went on until its budget was spent.
    assert all(row["solved"] or row["env_steps"] >= 500_000 for row in rows)
    for row in rows:
        assert {"act", "log_prob", "returns", "advantages", "loss", "gradient", "update"} <= {
            *row["stages"]
        }
    solved = sum(row["solved"] for row in rows)
    readme = " ".join((results.ROOT / "README.md").read_text(encoding="utf-8").split())
    updates = sum(row["updates"] for row in rows)
    said = f"all {updates:,} updates of {len(rows)} full runs, {solved} of them solved, passes"
    assert said in readme


def test_more_draws_of_rounding_allow_more_and_all_that_are_made_allow_the_error():
    rows = results.load("draws")["updates"]
    assert results.table_in(draws.PAGE, "draws") == draws.table(rows)
    for row in rows:
        allowed = dict(zip(draws.DRAWS, row["allowed"], strict=True))
        assert row["error"] < allowed[MOST_NUDGES]
    allowed = dict(zip(draws.DRAWS, rows[-1]["allowed"], strict=True))
    assert round(allowed[MOST_NUDGES] / allowed[8]) == 3  # as `parity.tolerance` says


def test_a_piece_that_failed_is_compared_once_more_and_the_rest_stays_as_it_is(monkeypatch):
    def piece(*, ok, closest, stage="update", updates=1_000):
        failures = [] if ok else ["one"]
        return {"updates": updates, "ok": ok, "closest": closest, "closest_stage": stage} | {
            "failures": failures,
            "over": False,
        }

    first = [piece(ok=True, closest=0.5, stage="loss"), piece(ok=False, closest=2.0)]
    last = [piece(ok=False, closest=1.5), piece(ok=True, closest=0.3, updates=10)]
    row = lockstep_pieces.joined([*first, *last])
    assert (row["updates"], row["failed_from"], row["closest"]) == (3_010, [1_001, 2_001], 2.0)
    row |= {"agent": "reparam", "episodes": 1, "seed": 1}

    led_to, proven = [], iter([piece(ok=True, closest=0.7), piece(ok=False, closest=1.2)])

    def lead(config, updates, led):
        led_to.append(updates)
        return led

    monkeypatch.setattr("parity.runs.proofs.lead", lead)
    monkeypatch.setattr(lockstep_pieces, "_piece", lambda config, led: next(proven))
    again = lockstep_pieces.once_more(row)
    assert led_to == [1_000, 2_000]
    assert (again["ok"], again["failed_from"], again["failures"]) == (False, [2_001], ["one"])
    assert (again["updates"], again["closest"]) == (3_010, 1.2)

    proven = iter([piece(ok=True, closest=0.1)])
    mended = lockstep_pieces.once_more(again)
    first_failed = {"from": [1_001, 2_001], "closest": 2.0, "failures": ["one", "one"]}
    assert again["failed_before"] == mended["failed_before"] == first_failed
    assert (mended["ok"], mended["failed_from"], mended["failures"]) == (True, [], [])
    assert (mended["closest"], mended["closest_stage"]) == (0.7, "update")

    proven = iter([piece(ok=True, closest=0.1)])
    alone = lockstep_pieces.joined([piece(ok=False, closest=3.0)])
    named = {"agent": "reparam", "episodes": 1, "seed": 1}
    assert lockstep_pieces.once_more(alone | named)["closest"] == 0.1


def test_either_framework_goes_on_with_what_the_other_began():
    rows = results.load("lockstep")["handover"]
    assert len({(row["leader"], row["agent"]) for row in rows}) == len(rows) == 4
    for row in rows:
        assert row["begun"] == 40
        assert row["updates"] == row["free_updates"] == 20
        assert row["next_ok"], row["failures"]
        assert row["free_ok"], row["failures"]


def test_faults_are_not_judged_without_the_nudged_runs_of_the_right_ones(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(lockstep_runs, "tasks_of", lambda part: (abs, []))
    with pytest.raises(UsageError, match="faults together with free"):
        lockstep_runs.main(lockstep_runs.Lockstep(parts=("faults",)))


def test_the_drift_table_is_that_of_the_committed_result():
    assert results.table_in(lockstep.PAGE, "drift") == drift.table(results.load("drift"))


def test_jax_goes_no_farther_from_pytorch_than_a_nudge_of_one_ulp_over_ten_seeds():
    figures = results.load("lockstep")
    for agent in lockstep.AGENTS:
        for dtype in lockstep.DTYPES:
            runs = lockstep.right_runs(figures, agent, dtype)
            assert len(runs) == 10
            assert rank_test(runs).ok, (agent, dtype)


def test_the_rank_test_sees_epsilon_inside_the_root_and_a_float32_bias_correction():
    figures = results.load("lockstep")
    named = {"ε inside the root", "float32 bias correction"}
    rows = [row for row in figures["faults"] if row["fault"] in named]
    assert len(rows) == 6  # the correction is a fault in float32 alone
    for row in rows:
        assert not lockstep.faulty_ranks(figures, row).ok, row["fault"]


def test_what_is_missing_of_a_measurement_is_run_and_the_rest_is_kept(monkeypatch, tmp_path):
    def measure(agent, seed):
        went_on.append(lockstep_pieces.begun(agent, seed).exists())
        return {"agent": agent, "seed": seed, "value": 2}

    went_on = []
    monkeypatch.setattr(lockstep_pieces, "BEGUN", tmp_path)
    pieces = lockstep_pieces.begun("reparam", 0)
    pieces.touch()

    tasks = [("reinforce", 0), ("reinforce", 1), ("reparam", 0)]
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(lockstep_runs, "tasks_of", lambda part: (measure, tasks))
    monkeypatch.setitem(lockstep.TABLES, "resync", lambda figures: "")
    monkeypatch.setattr(lockstep_runs, "PAGES", {})
    monkeypatch.setattr(lockstep_runs, "all_hold", lambda figures: True)
    old = {"agent": "reinforce", "seed": 1, "value": 1}
    results.save("lockstep", "command", {"resync": [old], "free": ["another part"]})
    options = {"parts": ("resync",), "jobs": 1, "save": True}
    assert lockstep_runs.main(lockstep_runs.Lockstep(missing=True, **options)) == 0
    figures = results.load("lockstep")
    assert [row["value"] for row in figures["resync"]] == [2, 1, 2]
    assert sorted(went_on) == [False, True]
    assert not pieces.exists()  # the run is kept whole
    pieces.touch()
    went_on.clear()
    assert figures["free"] == ["another part"]
    lockstep_runs.main(lockstep_runs.Lockstep(**options))
    assert [row["value"] for row in results.load("lockstep")["resync"]] == [2, 2, 2]
    assert went_on == [False, False, False]


@pytest.mark.skipif(not IS_DEEP, reason="of a benchmark, and long: make test-deep")
def test_a_run_that_is_compared_in_pieces_is_the_run_in_one(monkeypatch, tmp_path):
    """Also where it was broken off: what was kept is not compared again."""
    config = TrainConfig(
        agent="reparam", seed=1, hidden_sizes=(4,), episodes_per_update=1, total_timesteps=100
    )
    monkeypatch.setattr(lockstep_pieces, "config_of", lambda *_: config)
    monkeypatch.setattr(lockstep_pieces, "BEGUN", tmp_path / "begun")
    whole = lockstep_pieces.resync("reparam", 1, 1)
    lockstep_pieces.begun("reparam", 1, 1).unlink()
    assert whole["updates"] > 3
    assert whole["env_steps"] >= 100

    compared = []
    monkeypatch.setattr(lockstep_pieces, "PIECE", 3)
    piece = lockstep_pieces._piece

    def broken_off(config, led):
        if len(compared) == 1:
            compared.append("broken off")
            raise KeyboardInterrupt
        compared.append(led.updates)
        return piece(config, led)

    monkeypatch.setattr(lockstep_pieces, "_piece", broken_off)
    with pytest.raises(KeyboardInterrupt):
        lockstep_pieces.resync("reparam", 1, 1)
    assert lockstep_pieces.resync("reparam", 1, 1) == whole
    assert compared[:3] == [0, "broken off", 3]
    assert len(compared) == 1 + len(json.loads(lockstep_pieces.begun("reparam", 1, 1).read_text()))


@pytest.mark.parametrize("module", [reliability, determinism, checkpoint_formats])
def test_the_reliability_pages_tables_are_those_of_the_committed_results(module):
    assert results.table_in(module.PAGE, module.NAME) == module.table()


def test_every_fault_of_the_table_was_brought_about_and_survived():
    kinds = results.load("reliability")["kinds"]
    assert kinds.keys() == {*reliability.KINDS}
    for kind, kept in kinds.items():
        assert kept["command"].startswith(f"python -m benchmarks.reliability --only {kind}")
        for row in kept["rows"]:
            assert row["tries"] > 0, row
            assert row["survived"] == row["tries"], row
            assert row["failures"] == []


def test_a_fault_is_told_with_what_it_lost():
    tries = [Try(True, "first", 2), Try(False, "second", 1), Try(True, "third")]
    row = tally("a fault", tries, "updates")
    assert row == ("a fault", 3, 2, "at most 2 updates", ["second"])
    assert tally("a fault", tries[2:]).lost == "nothing"
    with pytest.raises(ValueError, match="of what"):
        tally("a fault", tries)


def test_what_bitwise_equality_is_said_to_depend_on_is_what_was_seen():
    seen = results.load("determinism")["seen"]
    for name in ("again, in a new process and another folder", "another hash seed of Python"):
        assert set(seen[name].values()) == {"the same"}
    assert set(seen["one core"].values()) != {"the same"}


def kept(name):
    values = results.load(name)
    return {key: value for key, value in values.items() if key not in ("command", "machine")}


@pytest.mark.parametrize("page", throughput.PAGES)
def test_the_pages_have_the_committed_throughput(page):
    assert results.table_in(page, "throughput") == throughput.table(kept("throughput"))


def test_the_page_has_the_committed_growth():
    curves = {
        name: [growth.Point(**point) for point in points] for name, points in kept("growth").items()
    }
    assert results.table_in("docs/speed.md", "growth") == growth.table(curves)


def test_the_page_has_the_committed_worth_of_each_choice():
    rows = [fast_pieces.Row(**row) for row in kept("fast_pieces")["rows"]]
    assert results.table_in("docs/speed.md", "fast_pieces") == fast_pieces.table(rows)


def test_the_page_has_the_committed_seconds_of_a_hundred_seeds():
    runs = kept("many_seeds")["runs"]
    assert results.table_in("docs/speed.md", "many_seeds") == many_seeds.table(runs)
