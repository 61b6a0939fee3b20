"""The power of the suite, by variant: wrong ones are caught, equivalent ones pass."""

import json
from collections import Counter

import pytest

from parity.cli import main
from parity.mutants import VARIANTS, selftest
from parity.mutants.power import AS_THEY_ARE, calls, full_name, outcome_of
from parity.mutants.variants import Lookalike, applied
from pgcore.errors import UsageError
from pgjax import losses as jax_losses
from pgjax import returns as jax_returns

WRONG = {full_name(variant): variant for variant in VARIANTS if not variant.equivalent}
EQUIVALENT = {full_name(variant): variant for variant in VARIANTS if variant.equivalent}
RAISING = {"pgtorch: padding kept in PyTorch"}  # actions that there are not: torch refuses them
KINDS = {
    "discounting",
    "masking",
    "normalising",
    "missing constants",
    "reductions",
    "shapes",
    "missing stops",
    "initialisation",
    "weight conversion",
    "clipping",
    "Adam's constants",
    "schedules and counters",
    "stale noise",
    "resampled actions",
    "swapped heads",
    "terminated against truncated",
    "environment",
    "networks",
    "sampling",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_variant_is_caught(name):
    outcome = outcome_of(name)
    assert outcome.caught
    assert outcome.stage
    # A variant that can't even run would prove nothing.
    assert not outcome.raised or name in RAISING, str(outcome.mismatch)


@pytest.mark.parametrize("name", EQUIVALENT)
def test_an_equivalent_variant_passes(name):
    outcome = outcome_of(name)
    assert not outcome.caught, str(outcome.mismatch)
    assert outcome.proof


def test_there_are_variants_of_every_kind_on_either_side():
    assert len(WRONG) >= 60
    assert len(EQUIVALENT) >= 6
    assert len(WRONG) + len(EQUIVALENT) == len(VARIANTS)  # no name twice
    assert {variant.kind for variant in WRONG.values()} == KINDS
    sides = Counter(variant.side for variant in WRONG.values())
    assert set(sides) == {"pgjax", "pgtorch", "both"}
    assert min(sides["pgjax"], sides["pgtorch"]) >= 20


def test_a_bug_that_both_packages_share_is_caught_by_the_definition():
    mismatch = outcome_of("both: unbiased deviation in both").mismatch
    assert mismatch.reference == mismatch.candidate != mismatch.oracle


def test_a_float32_bias_correction_is_caught_in_float32_alone():
    """optax.adam is right in float64; in float32 its 1 − b2ᵗ cancels (trap A01)."""
    mismatch = outcome_of("pgjax: bias correction in float32").mismatch
    assert (mismatch.dtype, mismatch.stage) == ("float32", "update")


def test_a_sample_that_is_not_stopped_shows_in_the_gradient_only():
    """Which is why gradients are compared, and not losses alone (trap C04)."""
    assert "gradient" in outcome_of("pgjax: sample not stopped").stage


def test_a_variant_is_gone_when_it_has_been_tried():
    right = jax_losses.reinforce_loss, jax_returns.discounted_returns
    outcome_of("pgjax: summed over episodes")
    outcome_of("pgjax: γ forgotten")
    assert (jax_losses.reinforce_loss, jax_returns.discounted_returns) == right


def test_families_that_call_nothing_replaced_are_told_from_those_that_do():
    from parity.suite.families import families

    chosen = [f for f in families() if f.name in ("loss", "returns", "gradient reinforce")]
    loss, returns = (jax_losses, "reinforce_loss"), (jax_returns, "discounted_returns")
    assert calls(chosen, [loss, returns]) == {
        "loss": {loss},
        "returns": {returns},
        "gradient reinforce": {loss},  # its returns are the reference's
    }


def test_a_lookalike_has_all_other_names_of_its_module():
    import math

    looks = Lookalike(math, sqrt=lambda x: -1)
    assert (looks.sqrt(4), looks.floor(1.5)) == (-1, 1)


def test_patches_are_undone_even_if_something_raises():
    right = jax_losses.reinforce_loss
    variant = WRONG["pgjax: summed over episodes"]

    def fail():
        with applied(variant.patches):
            assert jax_losses.reinforce_loss is not right
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert jax_losses.reinforce_loss is right


def test_the_command_prints_a_table_and_exits_with_0(capsys):
    names = "γ forgotten,clipping by where"
    assert main(["selftest", "--only", names, "--jobs", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    by_name = {each["name"]: each for each in found["variants"]}
    assert set(by_name) == {
        "pgjax: γ forgotten",
        "pgtorch: γ forgotten",
        "pgjax: clipping by where",
    }
    assert by_name["pgjax: γ forgotten"] == {
        "name": "pgjax: γ forgotten",
        "kind": "discounting",
        "equivalent": False,
        "caught": True,
        "stage": "returns",
        "proof": "",
    }
    assert by_name["pgjax: clipping by where"]["stage"] is None
    assert AS_THEY_ARE not in by_name


def test_an_unknown_variant_is_named():
    with pytest.raises(UsageError, match="only"):
        selftest(["γ forgoten"])
