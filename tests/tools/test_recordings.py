"""Recordings of PyTorch held against JAX's, on other machines, and what must not pass."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import parity
from parity.cli import main
from parity.recordings.recording import Recording
from parity.recordings.schema import to_bytes
from parity.suite import learning
from pgcore.errors import UsageError

ROOT = Path(__file__).parent.parent.parent
T, B = 6, 3
DRAW = np.random.default_rng(0).normal
REWARDS, LOG_PROBS = DRAW(size=(T, B)), DRAW(size=(T, B))
MASK = np.arange(T)[:, None] < np.array([6, 4, 1])
STAGES = {
    "returns": learning.returns(),
    "advantages": learning.advantages("batch"),
    "loss": learning.loss(),
}


def fed():
    """The inputs of each stage: the float64 reference's results of the stages before."""
    start = {"rewards": REWARDS, "mask": MASK, "discount": 0.9}
    found = STAGES["returns"].reference(start)["value"]
    advantages = STAGES["advantages"].reference({"returns": found, "mask": MASK})["value"]
    return {
        "returns": start,
        "advantages": {"returns": found, "mask": MASK},
        "loss": {"log_probs": LOG_PROBS, "advantages": advantages, "mask": MASK},
    }


def write(path, framework, only=STAGES, replaced=None):
    """Our own pipeline of one side, with one stage's function in another's place."""
    inputs = fed()
    with parity.record(path) as rec:
        rec.inputs(rewards=REWARDS, mask=MASK)
        for name in only:
            function = replaced or getattr(STAGES[name], framework)
            wrt = ["log_probs"] if name == "loss" else None
            rec.call(name, function, inputs[name], framework=framework, wrt=wrt)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`torch`, `jax`, and `sample`: advantages of JAX with n − 1 in place of n."""
    path = tmp_path_factory.mktemp("recordings")
    write(path / "torch", "torch")
    write(path / "jax", "jax")

    def sample(returns, mask):
        kept = jnp.where(mask, returns, 0)
        mean = kept.sum() / mask.sum()
        var = jnp.where(mask, (returns - mean) ** 2, 0).sum() / (mask.sum() - 1)
        return jnp.where(mask, (returns - mean) / jnp.sqrt(var), 0)

    write(path / "sample", "jax", ["advantages"], sample)
    right, wrong = (Recording.load(path / name) for name in ("jax", "sample"))
    mixed = right._replace(stages=right.stages | wrong.stages)
    (path / "sample").write_bytes(to_bytes(mixed))
    return path


def test_our_own_pipeline_recorded_in_torch_and_in_jax_is_the_same(folder):
    report = parity.compare(folder / "torch", folder / "jax")
    report.assert_ok()
    stages = {each.stage for each in report.comparisons}
    assert {"inputs", "returns", "advantages", "loss", "loss gradient"} <= stages
    judged = {v.dtype for each in report.comparisons for v in each.verdicts}
    assert {"float64", "float32"} <= judged


def test_a_wrong_stage_is_named_with_the_lines_of_both_sides(folder):
    report = parity.compare(folder / "torch", folder / "sample")
    assert {each.stage for each in report.failures} == {"advantages"}
    assert report.failures[0].dtype == "float64"
    text = str(report)
    assert "advantages in the reference: parity/suite/learning.py:" in text
    assert "def sample(returns, mask):" in text


def test_functions_of_this_machine_are_held_against_a_recording(folder):
    functions = {name: stage.jax for name, stage in STAGES.items()}
    parity.compare(folder / "torch", functions).assert_ok()
    wrong = functions | {"loss": lambda log_probs, advantages, mask: 0.5 * jnp.sum(log_probs)}
    failed = {each.stage for each in parity.compare(folder / "torch", wrong).failures}
    assert failed == {"loss", "loss gradient"}
    del functions["returns"]
    (missing,) = parity.compare(folder / "torch", functions).failures
    assert (missing.stage, missing.candidate) == ("returns", "absent")
    in_torch = {name: stage.torch for name, stage in STAGES.items()}
    parity.compare(folder / "jax", in_torch, framework="torch").assert_ok()


def test_a_function_that_can_not_be_run_has_parted(folder):
    functions = {name: stage.jax for name, stage in STAGES.items()}

    def broken(returns, mask):
        raise RuntimeError("no such thing")

    report = parity.compare(folder / "torch", functions | {"advantages": broken})
    assert "no such thing" in str(report)
    with pytest.raises(UsageError, match="did you mean 'loss'"):
        parity.compare(folder / "torch", {"los": broken})


# --- the yardstick that is recorded is the one that `check` measures -----------------------------


def test_a_recorded_bound_decides_as_the_rule_does(tmp_path):
    """The sum cancels: the share of max|ref| alone would refuse what rounding costs."""
    x = np.array([1e8, 1.0, -1e8, 0.25], np.float32).astype(np.float64)
    with parity.record(tmp_path / "a") as rec:
        rec.call("sum", torch.sum, {"input": x})
    bound = Recording.load(tmp_path / "a").stages["sum"].outputs["value"].bounds["float32"]
    assert bound.term != "scale"
    assert 1 < bound.value < 1e3
    for error, ok in ((0.5 * bound.value, True), (2 * bound.value, False)):
        with parity.record(tmp_path / "b") as rec:
            rec.inputs(input=x)
            rec.stage("sum", {"value": np.float32(1.25 + error)})
        assert parity.compare(tmp_path / "a", tmp_path / "b").ok == ok


def test_an_entry_that_a_rounding_decides_may_be_either_and_no_other(tmp_path):
    def floors(x):  # 1/x · x is 1, or just below it, by a rounding on the way
        return torch.floor(torch.stack([1 / x * x, x + 1.5]))

    x = np.array([3.0, 7.0])
    with parity.record(tmp_path / "a") as rec:
        rec.call("floor", floors, {"x": x})
    ours = Recording.load(tmp_path / "a").stages["floor"].outputs["value"]
    exact = ours.runs["float64"].array
    assert ours.ties is not None
    for change, ok in (([-1, 0], True), ([0, -1], False), ([-5, 0], False), ([0.5, 0], False)):
        with parity.record(tmp_path / "b") as rec:
            rec.inputs(x=x)
            rec.stage("floor", {"value": exact + np.array(change)[:, None]})
        assert parity.compare(tmp_path / "a", tmp_path / "b").ok == ok, change


# --- bare arrays ---------------------------------------------------------------------------------


def bare(path, inputs=None, **stages):
    with parity.record(path) as rec:
        rec.inputs(**(inputs or {}))
        for name, arrays in stages.items():
            rec.stage(name, **arrays)
    return path


X = DRAW(size=5)


def test_arrays_of_all_three_kinds_are_compared_whatever_made_them(tmp_path):
    values = {
        "f32": (torch.tensor(X, dtype=torch.float32), jnp.asarray(X, jnp.float32)),
        "bf16": (torch.tensor(X).bfloat16(), jnp.asarray(X, jnp.float32).astype(jnp.bfloat16)),
        "f16": (torch.tensor(X).half(), X.astype(np.float16)),
        "minus": (torch.tensor(1j * X).conj().imag, -X),  # torch only notes the minus
        "flag": (torch.tensor(X > 0), jnp.asarray(X > 0)),
        "count": (torch.tensor(3), np.int32(3)),
        "rows": (torch.arange(6).reshape(2, 3).T, np.arange(6, dtype=np.int16).reshape(2, 3).T),
        "grad": (torch.tensor(X, dtype=torch.float32, requires_grad=True) * 1, np.float32(X)),
    }
    for side in (0, 1):
        bare(tmp_path / str(side), s={name: pair[side] for name, pair in values.items()})
    found = Recording.load(tmp_path / "0").stages["s"].outputs
    for name in ("f32", "bf16", "f16"):
        (leaf,) = found[name].runs.values()
        assert (leaf.array == values[name][0].float().numpy()).all()
    report = parity.compare(tmp_path / "0", tmp_path / "1")
    report.assert_ok()
    assert "judged by the share of the largest value alone" in str(report)


def both(tmp_path, theirs, our_inputs=None, their_inputs=None):
    bare(tmp_path / "a", our_inputs, s={"x": X})
    bare(tmp_path / "b", their_inputs, **theirs)
    return parity.compare(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"s": {"x": X * (1 + 2e-11)}}, "s: x"),
        ({"s": {"x": X.astype(np.float32)}}, "candidate float32"),
        ({"s": {"x": X[:4]}}, r"candidate shape \(4,\)"),
        ({"s": {"x": np.where(X > 0, np.nan, X)}}, "nan"),
        ({"s": {"x": X > 0}}, "float64"),
        ({"s": {"y": X}}, "absent"),
        ({"s": {"x": X, "more": X}}, "s: more"),
        ({"s": {"x": X}, "more": {"x": X}}, "more: all"),
        ({"other": {"x": X}}, "s: all"),
    ],
)
def test_what_differs_fails_and_is_named(tmp_path, theirs, said):
    report = both(tmp_path, theirs)
    assert not report.ok
    with pytest.raises(AssertionError, match=said):
        report.assert_ok()


def test_a_shift_within_the_gate_passes(tmp_path):
    assert both(tmp_path, {"s": {"x": X * (1 + 2e-12)}}).ok


def test_what_is_not_finite_fails_unless_it_is_expected_in_the_same_places(tmp_path):
    spoilt = np.array([1.0, np.nan, np.inf])
    for name, values in (("a", spoilt), ("b", spoilt), ("c", spoilt[::-1])):
        bare(tmp_path / name, s={"x": values.copy()})
    a, b, c = (tmp_path / name for name in "abc")
    assert not parity.compare(a, b).ok
    assert parity.compare(a, b, expect_nonfinite=["s/x"]).ok
    assert not parity.compare(a, c, expect_nonfinite=["s/x"]).ok
    with pytest.raises(UsageError, match="did you mean 's/x'"):
        parity.compare(a, b, expect_nonfinite=["s/y"])


@pytest.mark.parametrize("theirs", [{"obs": X + 1e-3}, {}, {"obs": X, "n": 1}, {"obs": X[:3]}])
def test_equal_outputs_of_other_inputs_prove_nothing_and_it_is_said_first(tmp_path, theirs):
    report = both(tmp_path, {"s": {"x": X}}, {"obs": X}, theirs)
    assert report.failures[0].stage == "inputs"
    assert "proves nothing until they agree" in str(report)


def test_inputs_that_one_side_rounded_once_agree(tmp_path):
    theirs = {"obs": X.astype(np.float32)}
    assert both(tmp_path, {"s": {"x": X}}, {"obs": X}, theirs).ok


def test_a_recording_without_stages_is_not_the_same_as_anything(tmp_path):
    bare(tmp_path / "a", {"x": X})
    assert not parity.compare(tmp_path / "a", tmp_path / "a").ok


def test_versions_and_settings_that_differ_are_stated(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " ")
    bare(tmp_path / "a", s={"x": X})
    ours = Recording.load(tmp_path / "a")
    changed = {**ours.surroundings["versions"], "jax": "0.0.1"}
    theirs = ours._replace(surroundings={**ours.surroundings, "versions": changed})
    report = parity.compare(ours, theirs)
    assert report.ok
    assert f"versions differ: jax {jax.__version__} → 0.0.1" in str(report)


# --- where neither framework is installed --------------------------------------------------------

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "jax", "jaxlib", "flax", "optax", "ml_dtypes"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
from parity.cli import main
sys.exit(main(sys.argv[1:]))
"""


def diff(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_framework_the_verdict_is_the_same(folder):
    same, differ = (diff("diff", folder / "torch", folder / name) for name in ("jax", "sample"))
    assert (same.returncode, differ.returncode) == (0, 1), same.stderr + differ.stderr
    assert "the same" in same.stdout
    assert "advantages: value" in differ.stdout
    shown = diff("recording", folder / "torch")
    assert shown.returncode == 0
    assert "loss gradient: a function in torch" in shown.stdout


def test_exit_codes_and_files_are_for_a_machine(folder, tmp_path, capsys):
    files = ["--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html")]
    assert main(["diff", str(folder / "torch"), str(folder / "jax"), *files]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["ok"] is True
    assert "the same" in (tmp_path / "r.html").read_text()
    assert main(["diff", str(folder / "torch"), str(folder / "sample")]) == 1
    damaged = bytearray((folder / "jax").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged").write_bytes(bytes(damaged))
    capsys.readouterr()
    assert main(["diff", str(folder / "torch"), str(tmp_path / "damaged")]) == 2
    assert "damaged' is damaged in its array" in capsys.readouterr().err
    assert main(["diff", str(folder / "torch"), str(tmp_path / "nothing")]) == 2
    assert main(["recording", str(tmp_path / "r.html")]) == 2
