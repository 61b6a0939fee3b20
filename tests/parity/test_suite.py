"""The suite of our own implementations: every stage, every hazard, in PyTorch, JAX and by hand."""

import json
import os

import numpy as np
import pytest

from parity import hazards
from parity.cli import main
from parity.mutants.of_returns import JAX, normalized
from parity.suite import adapters, checking, families, optimizers
from parity.suite.checking import check_suite, tally
from parity.suite.family import Direct, Family
from parity.suite.stages import forget
from pgcore.errors import UsageError
from pgjax import returns as jax_returns
from tests.depth import IS_DEEP

SEED = int.from_bytes(os.urandom(4)) if IS_DEEP else 0
NUM_EXAMPLES = 500 if IS_DEEP else 25
FAMILIES = {family.name: family for family in families.families()}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_stage_agrees_on_whatever_is_drawn(name):
    family = FAMILIES[name]
    number = max(1, round(NUM_EXAMPLES * min(family.share, 1.0)))
    found = tally(family, SEED, range(number))
    parted = [
        f"{name}, seed {SEED}, example {each.example}, {each.how}, {each.choices}:\n"
        + "\n".join(map(str, each.comparison.mismatches))
        for each in found.findings
    ]
    assert found.ok, "\n".join(parted)
    assert found.comparisons
    assert all(comparison.verdicts for comparison in found.comparisons)


@pytest.mark.parametrize("example", [54, 71])
def test_a_kept_alarm_two_returns_whose_slope_cancels_is_no_mismatch(example):
    """Two returns of 1e-40 become −1 and 1: the slope is exactly 0, and what is computed of it is
    rounding over 1e-40. Moved inputs move it as far by an ulp of float64 as by one of float32, like
    a kink; left out of the response to operations too, as jumps once were, it was an alarm.
    """
    _, parts = checking.held(FAMILIES["advantages batch"], 3, example)
    for _, comparison in parts:
        comparison.assert_ok()


def test_every_hazard_is_on_an_axis():
    drawn = {
        value for family in FAMILIES.values() for axis in family.axes.values() for value in axis
    }
    for known in (
        hazards.MASKS,
        hazards.REWARDS,
        hazards.PADDINGS,
        hazards.LOGITS,
        hazards.NORMALS,
        hazards.NOISES,
        hazards.PARAMS,
        hazards.GRADIENTS,
        hazards.DISCOUNTS,
        hazards.COUNTS,
        hazards.NORMS,
        hazards.TIES,
        hazards.EPISODES,
        hazards.SIZES,
        hazards.DEPTHS,
        hazards.RUNS,
        hazards.LAWS,
    ):
        assert set(known) <= drawn


def test_each_schedule_gives_another_rate_a_step_before_or_after_a_drawn_count():
    """Or a count that is off by one would not show."""
    for schedule in optimizers.SCHEDULES.values():
        rates = {count: schedule(count) for count in range(1_002)}
        drawn = optimizers.SCHEDULE_COUNTS
        assert any(rates[count] != rates[count + 1] for count in drawn)
        assert any(rates[count] != rates[count - 1] for count in drawn if count)
        assert any(rates[count] != rates[0] for count in drawn)


@pytest.mark.parametrize("package", adapters.PACKAGES)
def test_episodes_through_the_adapters_end_for_either_reason(package):
    """Or flags that are exchanged would not show."""
    example = FAMILIES[f"gymnasium {package}"]
    drawn = [example.example(0, index)[1] for index in range(2)]
    found = [each.candidate(each.inputs) for each in drawn]
    assert any(each["terminated"].any() for each in found)
    assert all(each["truncated"].any() for each in found)


def fake(draw=lambda rng, **choices: None, **axes):
    return Family("fake", axes, draw)


def test_each_axis_goes_through_all_its_values_before_it_repeats_one():
    family = fake(kind=("a", "b", "c"), size=(1, 2))
    choices = [family.example(7, index)[0] for index in range(12)]
    for start in range(0, 12, 3):
        assert {each["kind"] for each in choices[start : start + 3]} == {"a", "b", "c"}
    pairs = {(each["kind"], each["size"]) for each in choices}
    assert len(pairs) == 6  # in orders of their own, so that all pairs come


def test_an_example_is_decided_by_seed_and_number_alone():
    family = fake(lambda rng, kind: rng.random(3).tolist(), kind=(1, 2, 3))
    assert family.example(1, 4) == family.example(1, 4)
    assert family.example(1, 4)[1] != family.example(1, 5)[1]
    assert family.example(1, 4)[1] != family.example(2, 4)[1]


def doubling(candidate):
    inputs = {"x": np.ones(3)}
    doubled = lambda inputs: {"value": 2 * inputs["x"]}  # noqa: E731
    return fake(lambda rng: Direct("doubling", doubled, candidate, inputs))


def test_what_raises_has_parted_and_says_how():
    def broken(inputs):
        raise RuntimeError("no such thing")

    found = tally(doubling(broken), 0, [0])
    assert not found.ok
    (mismatch,) = found.findings[0].comparison.mismatches
    assert (mismatch.reference, mismatch.candidate) == ("runs", "RuntimeError: no such thing")


def test_a_wrong_number_is_a_finding_with_what_was_drawn():
    found = tally(doubling(lambda inputs: {"value": 2.001 * inputs["x"]}), 0, [3, 5])
    assert [(each.example, each.how) for each in found.findings] == [(3, "jitted"), (5, "jitted")]
    assert found.findings[0].comparison.mismatches[0].error == pytest.approx(0.001)


def test_a_tally_keeps_the_verdict_that_is_closest_to_its_bound():
    found = tally(FAMILIES["loss"], 0, range(1, 8))
    singles = [tally(FAMILIES["loss"], 0, [index]) for index in range(1, 8)]
    worst = max(
        checking.closeness(verdict)
        for single in singles
        for comparison in single.comparisons
        for verdict in comparison.verdicts
    )
    assert worst > 0
    kept = [v for comparison in found.comparisons for v in comparison.verdicts]
    assert max(map(checking.closeness, kept)) == worst


def test_examples_run_eagerly_and_vmapped_are_compared_too(monkeypatch):
    """A port that is wrong only under vmap: its number depends on the others of the batch."""
    family = FAMILIES["episode returns"]
    right = jax_returns.episode_returns

    def wrong(rewards, mask):
        import jax

        is_mapped = isinstance(rewards, jax.core.Tracer) and "Batch" in type(rewards).__name__
        return right(rewards, mask) + is_mapped

    monkeypatch.setattr(jax_returns, "episode_returns", wrong)
    forget()
    found = tally(family, 0, [0])
    forget()
    assert {each.how for each in found.findings} == {"vmapped"}


# --- the command ---------------------------------------------------------------------------------


def test_the_command_says_what_was_compared_and_exits_with_0(capsys):
    assert (
        main(["check", "--examples", "3", "--only", "episode returns,action", "--jobs", "1"]) == 0
    )
    out = capsys.readouterr().out
    assert "episode returns" in out
    assert "action reparam" in out
    assert "all the same" in out


def test_the_command_shows_a_stage_that_parts_and_how_to_repeat_it(capsys, monkeypatch):
    monkeypatch.setattr(jax_returns, "normalize_returns", normalized(JAX, ddof=1))
    forget()
    arguments = ["check", "--only", "advantages batch", "--examples", "4", "--jobs", "1"]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "advantages batch" in out
    assert "NOT the same" in out
    again = next(line for line in out.splitlines() if "again:" in line)
    assert "--only 'advantages batch' --example " in again
    number = again.partition("--example ")[2].split()[0]
    repeated = [*arguments[:3], "--example", number, "--jobs", "1", "--json"]
    assert main(repeated) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["failures"][0]["example"] == int(number)
    assert found["failures"][0]["stage"].startswith("advantages")
    forget()


def test_the_report_is_a_page(tmp_path, capsys):
    page = tmp_path / "report.html"
    assert main(["check", "--only", "loss", "--examples", "2", "--report", str(page)]) == 0
    assert "<table>" in page.read_text()
    assert "loss gradient" in page.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["lo55"]}, "only"),
        ({"examples": 0}, "examples is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"example": -2}, "example is -2"),
    ],
)
def test_what_is_not_accepted_is_named(options, message):
    with pytest.raises(UsageError, match=message):
        check_suite(**options)
