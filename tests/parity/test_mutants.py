"""The power of the suite, by variant: wrong ones are caught, equivalent ones pass."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from parity import workers
from parity.mutants import VARIANTS, Outcome, selftest
from parity.mutants.command import as_json, as_text
from parity.mutants.power import AS_THEY_ARE, calls, first_parting, full_name, narrowed
from parity.mutants.variants import Lookalike, applied
from parity.suite.family import Family
from parity.tolerance import Comparison, Mismatch
from pgcore.errors import UsageError
from pgjax import losses as jax_losses
from pgjax import returns as jax_returns

ROOT = Path(__file__).parents[2]
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


@pytest.mark.takes_long
def test_the_suite_catches_every_wrong_variant_and_passes_every_equivalent_one():
    # In a process of its own: the tests check shapes in our packages, and would catch variants too.
    # In one, since each would compile the right code anew; the other tests have the other core.
    command = [sys.executable, "-m", "parity", "selftest", "--json", "--jobs", "1"]
    flags = f"{os.environ.get('XLA_FLAGS', '')} {workers.xla_flags(workers.QUICK)}"
    env = {**os.environ, "XLA_FLAGS": flags}  # as `--jobs 2` has them
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    found = {each["name"]: each for each in json.loads(run.stdout)["variants"]}
    assert list(found) == [full_name(variant) for variant in VARIANTS]
    for name, each in found.items():
        assert each["caught"] is (name in WRONG), each
        assert each["equivalent"] is (name in EQUIVALENT)
        assert bool(each["stage"]) is each["caught"]
        assert bool(each["proof"]) is each["equivalent"]
        # A variant that can't even run would prove nothing.
        assert not each["raised"] or name in RAISING, each["first"]
    # A bug that both packages share is seen by the definition alone.
    shared = found["both: unbiased deviation in both"]["first"]
    values = re.search(r"reference (\S+), candidate (\S+), oracle (\S+);", shared)
    assert values[1] == values[2] != values[3]
    # optax.adam is right in float64; in float32 its 1 − b2ᵗ cancels (trap A01).
    assert " in float32: " in found["pgjax: bias correction in float32"]["first"]
    # Losses are right where a sample is not stopped, gradients are not (trap C04).
    assert found["pgjax: sample not stopped"]["stage"] == "log_prob gradient"


def test_there_are_variants_of_every_kind_on_either_side():
    assert len(WRONG) >= 60
    assert len(EQUIVALENT) >= 6
    assert len(WRONG) + len(EQUIVALENT) == len(VARIANTS)  # no name twice
    assert {variant.kind for variant in WRONG.values()} == KINDS
    sides = Counter(variant.side for variant in WRONG.values())
    assert set(sides) == {"pgjax", "pgtorch", "both"}
    assert min(sides["pgjax"], sides["pgtorch"]) >= 20


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


def outcome(name, mismatch=None, *, equivalent=False):
    proof = "since it is" if equivalent else ""
    stage = "" if mismatch is None else mismatch.stage
    return Outcome(name, "kind", equivalent, proof, stage, mismatch, False, 1.0)


PARTED = Mismatch("loss", "value", (), 1.0, 2.0, 1.0, 1.0, 1e-11, "float64")
AS_IS = outcome(AS_THEY_ARE, equivalent=True)


def test_the_table_says_what_was_caught_and_what_was_not():
    found = [AS_IS, outcome("a", PARTED), outcome("b"), outcome("c", equivalent=True)]
    lines = as_text(found, 3.0).splitlines()
    assert [line.split() for line in lines[2:5]] == [
        ["a", "loss"],
        ["b", "NOT", "CAUGHT"],
        ["c", "passes"],
    ]
    assert lines[-1] == "1 of 2 wrong variants caught, 1 of 1 equivalent ones passed, in 3 s"
    assert as_json(found, 3.0)["ok"] is False
    assert as_json([AS_IS, outcome("a", PARTED)], 3.0)["ok"] is True
    assert [each["name"] for each in as_json(found, 3.0)["variants"]] == ["a", "b", "c"]


def test_an_equivalent_variant_that_parts_is_shown_and_fails():
    found = [AS_IS, outcome("c", PARTED, equivalent=True)]
    assert "WRONGLY loss" in as_text(found, 3.0)
    assert "c should pass:" in as_text(found, 3.0)
    assert as_json(found, 3.0)["ok"] is False


def test_right_code_that_parts_fails_whatever_is_caught():
    found = [outcome(AS_THEY_ARE, PARTED, equivalent=True), outcome("a", PARTED)]
    assert as_json(found, 3.0)["ok"] is False


def test_an_unknown_variant_is_named():
    with pytest.raises(UsageError, match="only"):
        selftest(["γ forgoten"])


class Parting(NamedTuple):
    """An example that parts in one precision."""

    name: str
    dtype: str

    def compare(self, *, jit, precisions):
        parted = PARTED._replace(stage=self.name, dtype=self.dtype)
        return [Comparison(self.name, [parted] if self.dtype in precisions else [], [])]


def test_what_parts_in_float64_comes_before_what_parts_in_float32():
    def family(name, dtype):
        return Family(name, {"kind": ("usual",)}, lambda rng, kind: Parting(name, dtype))

    single, double = family("earlier", "float32"), family("later", "float64")
    assert first_parting([single, double]).stage == "later"
    assert first_parting([single]).stage == "earlier"
    assert first_parting([]) is None


def test_an_example_is_compared_in_the_precisions_that_are_asked_for():
    _, example = next(f for f in narrowed() if f.name == "loss").example(0, 0)
    for dtype in ("float64", "float32"):
        for comparison in example.compare(precisions=(dtype,)):
            assert {v.dtype for v in comparison.verdicts if v.side == "candidate"} == {dtype}
    _, direct = next(f for f in narrowed() if f.name.startswith("weights")).example(0, 0)
    assert direct.compare(precisions=("float32",)) == []
    assert len(direct.compare(precisions=("float64",))) == 1


def test_processes_are_told_to_compile_fast_with_the_flags_that_this_xla_knows(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    monkeypatch.setitem(workers.QUICK, "xla_no_such_flag", 1)
    tasks = [("XLA_FLAGS",)] * 2
    quick = {flags for _, flags in workers.results(os.getenv, tasks, 2, optimise=False)}
    usual = {flags for _, flags in workers.results(os.getenv, tasks, 2)}
    assert usual == {"--xla_cpu_enable_fast_math=false"}
    [flags] = quick
    assert flags.startswith("--xla_cpu_enable_fast_math=false ")
    assert "--xla_backend_optimization_level=0" in flags
    assert "no_such" not in flags
