"""Recordings of sides with other names, of choices that rounding decides, and of noise."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import parity
import pgjax
import pgtorch
from parity.cli import main
from parity.recordings.recording import Recording
from pgcore.errors import UsageError

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def bare(path, inputs=None, **stages):
    with parity.record(path) as rec:
        rec.inputs(**(inputs or {}))
        for name, arrays in stages.items():
            rec.stage(name, arrays)
    return path


# --- choices that rounding decides ---------------------------------------------------------------


def scores(x):
    return torch.stack([x.sum(1), (x * 1).flip(1).sum(1)], -1)  # the same, but for rounding


def choice(x):
    return {"action": scores(x).argmax(-1), "value": x.sum()}


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """A recording in which both choices of an action are as good, and one that hides it."""
    folder = tmp_path_factory.mktemp("tied")
    for name, decider in (("decided", scores), ("silent", None)):
        with parity.record(folder / name) as rec:
            rec.call("act", choice, {"x": X}, decider=decider)
    return folder


def runs_of_action(file):
    return Recording.load(file).stages["act"].outputs["action"].runs.values()


def with_action(file, change, folder):
    """The recording with other actions in both precisions."""
    found = Recording.load(file)
    stage = found.stages["act"]
    old = stage.outputs["action"]
    runs = {p: leaf._replace(array=change(leaf.array)) for p, leaf in old.runs.items()}
    outputs = stage.outputs | {"action": old._replace(runs=runs)}
    return found._replace(stages={"act": stage._replace(outputs=outputs)}, path=folder / "other")


def test_the_other_choice_passes_where_rounding_decides_and_is_counted(tied, tmp_path):
    other = with_action(tied / "silent", lambda action: 1 - action, tmp_path)
    report = parity.compare(tied / "decided", other)
    report.assert_ok()
    exact, single = (run.array for run in runs_of_action(tied / "decided"))
    differing = np.sum(1 - exact != exact) + np.sum(1 - single != exact)
    assert sum(each.ties for each in report.comparisons) == differing > len(X)
    assert not parity.compare(tied / "silent", other).ok
    nowhere = with_action(tied / "silent", lambda action: action + 2, tmp_path)
    assert not parity.compare(tied / "decided", nowhere).ok


def test_a_clear_decision_is_no_tie(tmp_path):
    clear = np.array([[1.0, 2.0], [2.0, 1.0]])
    with parity.record(tmp_path / "a") as rec:
        rec.call(
            "act",
            lambda logits: logits.argmax(-1),
            {"logits": clear},
            decider=lambda logits: logits,
        )
    theirs = {"act": lambda logits: 1 - jnp.argmax(logits, -1)}
    report = parity.compare(tmp_path / "a", theirs)
    assert {m.dtype for m in report.failures} == {"float64", "float32"}
    assert report.failures[0].error == 1.0


def test_a_threshold_in_jax_and_in_numpy_ties_within_rounding(tmp_path):
    x = np.array([0.5, -0.25, 0.75], np.float32)
    over = {"jax": jnp.sum, "numpy": np.sum}
    for framework, total in over.items():
        with parity.record(tmp_path / framework) as rec:
            rec.inputs(x=x)
            rec.call(
                "done",
                lambda x, total=total: total(x) >= 1.0,
                framework=framework,
                decider=lambda x, total=total: total(x) - 1.0,
            )
    never = {"done": lambda x: jnp.sum(x) > 1.0}
    for framework in over:
        report = parity.compare(tmp_path / framework, never)
        report.assert_ok()
        assert sum(each.ties for each in report.comparisons) == 2
        shifted = {"done": lambda x: jnp.sum(x) > 0.5}
        assert parity.compare(tmp_path / framework, shifted).ok  # equal at this x


def test_scores_of_bare_arrays_decide_in_their_own_precision(tmp_path):
    logits = np.array([[1.0, 1.0 + 1e-7], [1.0, 1.0 + 1e-3]], np.float32)
    with parity.record(tmp_path / "a") as rec:
        rec.stage("act", action=torch.tensor(logits).argmax(-1))
        rec.decided("act", action=logits)
    assert "decided by scores [2, 2]" in str(Recording.load(tmp_path / "a"))
    for action, ok in (([0, 1], True), ([1, 0], False), ([1, 1], True), ([2, 1], False)):
        bare(tmp_path / "b", act={"action": np.array(action)})
        assert parity.compare(tmp_path / "a", tmp_path / "b").ok == ok, action


@pytest.mark.parametrize(
    ("decide", "said"),
    [
        (lambda rec: rec.decided("ac", X), "did you mean 'act'"),
        (lambda rec: rec.decided("act", action=X[:, :1, None]), "floating array of the shape"),
        (lambda rec: rec.decided("act", actoin=X), "gives actoin"),
        (lambda rec: rec.decided("act"), "one of the two"),
        (lambda rec: rec.decided("act", X, action=X), "one of the two"),
        (lambda rec: rec.decided("act", action=np.arange(4)), "floating array of the shape"),
        (lambda rec: rec.decided("of call", X), "rec.call takes a decider"),
        (
            lambda rec: rec.call("s", choice, {"x": X}, decider=lambda x: x[:2]),
            "decider of stage 's' gives value",
        ),
        (lambda rec: rec.call("s", choice, {"x": X}, decider=lambda y: y), "needs 'y' too"),
    ],
)
def test_what_decides_nothing_is_refused(tmp_path, decide, said):
    with parity.record(tmp_path / "a") as rec:
        rec.stage("act", action=np.zeros(4, int))
        rec.call("of call", lambda x: x.sum(), {"x": X})
        with pytest.raises(UsageError, match=said):
            decide(rec)


# --- other names ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """One computation, recorded in torch and, under other names, in JAX."""
    folder = tmp_path_factory.mktemp("named")
    with parity.record(folder / "torch") as rec:
        rec.inputs(obs=X, params={"w": X[0]})
        rec.call(
            "head",
            lambda obs, params: {"mu": obs @ params["w"], "std": params["w"].exp()},
            wrt=["params"],
        )
        rec.stage("loss", total=X.sum())
    with parity.record(folder / "jax") as rec:
        rec.inputs(x=X, params={"kernel": X[0]})
        rec.call(
            "Head",
            lambda x, params: {"mean": x @ params["kernel"], "std": jnp.exp(params["kernel"])},
            wrt=["params"],
            framework="jax",
        )
        rec.stage("loss", sum=X.sum())
    return folder


RENAME = {"obs": "x", "params/w": "params/kernel", "head": "Head", "mu": "mean"}
RENAME |= {"loss/total": "sum"}


def test_a_candidate_with_other_names_is_the_same_by_rename(named):
    report = parity.compare(named / "torch", named / "jax", rename=RENAME)
    report.assert_ok()
    stages = {each.stage for each in report.comparisons}
    assert {"inputs", "inputs of head", "inputs of head gradient", "head gradient"} <= stages
    assert {
        v.leaf for c in report.comparisons if c.stage == "head gradient" for v in c.verdicts
    } == {"params/w"}
    for lost in RENAME:
        rest = {old: new for old, new in RENAME.items() if old != lost}
        assert not parity.compare(named / "torch", named / "jax", rename=rest).ok, lost


def test_functions_with_other_names_are_the_same_by_rename(named):
    theirs = {
        "Head": lambda x, params: {"mean": x @ params["kernel"], "std": jnp.exp(params["kernel"])},
        "loss": lambda x: {"sum": jnp.sum(x)},
    }
    report = parity.compare(named / "torch", theirs, rename=RENAME)
    assert {each.stage for each in report.comparisons} == {"head", "head gradient", "loss"}
    report.assert_ok()
    exchanged = theirs | {"Head": lambda x, params: {"mean": theirs["Head"](x, params)["std"]}}
    assert not parity.compare(named / "torch", exchanged, rename=RENAME).ok


def test_names_that_are_exchanged_can_be_exchanged_back(tmp_path):
    bare(tmp_path / "a", s={"p": X, "q": -X})
    bare(tmp_path / "b", s={"q": X, "p": -X})
    assert not parity.compare(tmp_path / "a", tmp_path / "b").ok
    parity.compare(tmp_path / "a", tmp_path / "b", rename={"p": "q", "q": "p"}).assert_ok()


def test_a_name_in_another_stage_does_not_hide_one_that_is_not_there(tmp_path):
    for name in "ab":
        bare(tmp_path / name, one={"p": X, "q": X}, two={"p": X, "q": X})
    rename = {"one/p": "r", "two/p": "p"}
    with pytest.raises(UsageError, match=r"rename\['one/p'\], in the candidate, is 'r'"):
        parity.compare(tmp_path / "a", tmp_path / "b", rename=rename)


def test_a_name_of_one_stage_is_looked_for_in_that_stage(tmp_path):
    bare(tmp_path / "a", one={"p": X}, two={"p": X})
    bare(tmp_path / "b", eins={"p": X}, two={"q": X})
    rename = {"one": "eins", "one/p": "q", "two/p": "q"}
    with pytest.raises(UsageError, match=r"rename\['one/p'\], in the candidate, is 'q'"):
        parity.compare(tmp_path / "a", tmp_path / "b", rename=rename)
    del rename["one/p"]
    parity.compare(tmp_path / "a", tmp_path / "b", rename=rename).assert_ok()


@pytest.mark.parametrize("inputs", [{"x": 1, "w": {"a": 2}}, {"w": {"a": 2}, "x": 1}])
def test_a_renamed_input_does_not_take_the_place_of_what_is_below_its_name(tmp_path, inputs):
    bare(tmp_path / "a", {"w": 1}, s={"p": X})
    bare(tmp_path / "b", inputs, s={"p": X})
    with pytest.raises(UsageError, match="rename makes a second 'w"):
        parity.compare(tmp_path / "a", tmp_path / "b", rename={"w": "x"})


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        ({"obss": "x"}, "did you mean 'obs'"),
        ({"head/mean": "mu"}, "rename is 'head/mean'"),
        ({"obs": "params"}, "rename makes a second"),
        ({"mu": "m", "std": "m"}, "calls both 'mu' and 'std' 'm'"),
        ({"head": "loss"}, "second stage"),
        ({"mu": 1}, r"rename\['mu'\] is 1"),
        ({"mu": "std1"}, r"rename\['mu'\], in the candidate, is 'std1'.* did you mean 'std'"),
        ({"obs": ""}, r"rename\['obs'\], in the candidate, is ''"),
        ({"head": "haed"}, r"did you mean 'head'"),
        ({"loss/total": "totl"}, r"rename\['loss/total'\], in the candidate, is 'totl'"),
    ],
)
def test_a_rename_that_can_not_be_meant_is_refused(named, rename, said):
    with pytest.raises(UsageError, match=said):
        parity.compare(named / "torch", named / "torch", rename=rename)


def test_the_command_takes_other_names(named, tmp_path, capsys):
    pairs = ",".join(f"{old}={new}" for old, new in RENAME.items())
    files = [str(named / "torch"), str(named / "jax")]
    out = ["--json", str(tmp_path / "r.json")]
    assert main(["diff", *files, "--rename", pairs, *out]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["ok"] is True
    assert main(["diff", *files]) == 1
    capsys.readouterr()
    assert main(["diff", *files, "--rename", "obs"]) == 2
    assert "rename is 'obs', accepted is" in capsys.readouterr().err


# --- inputs, noise, precisions -------------------------------------------------------------------


def test_the_same_results_of_a_stage_with_other_inputs_of_its_own_prove_nothing(tmp_path):
    for name, value in (("a", 2.0), ("b", -2.0)):
        with parity.record(tmp_path / name) as rec:
            rec.inputs(x=X)
            rec.call("square", lambda y: y * y, {"y": np.array([value])})
    report = parity.compare(tmp_path / "a", tmp_path / "b")
    assert {each.stage for each in report.failures} == {"inputs of square"}


def test_a_gradient_of_other_outputs_proves_nothing(tmp_path):
    def both(x):
        return {"p": x * 2, "q": x * 2}

    with parity.record(tmp_path / "a") as rec:
        rec.call("s", both, {"x": X[0]}, wrt=["x"])
    ours = Recording.load(tmp_path / "a")
    stage = ours.stages["s gradient"]
    weights = {leaf: -weight for leaf, weight in (stage.cotangents or {}).items()}
    theirs = ours._replace(stages=ours.stages | {"s gradient": stage._replace(cotangents=weights)})
    failed = {each.stage for each in parity.compare(ours, theirs).failures}
    assert failed == {"inputs of s gradient"}


def test_noise_of_either_framework_is_the_same_and_other_noise_is_not(tmp_path):
    reset, policy = X[:, :2], np.ones((5, 4, 2), np.float32)
    made = {
        "torch": pgtorch.Noise(torch.tensor(reset), torch.tensor(policy)),
        "jax": pgjax.Noise(jnp.array(reset), jnp.array(policy)),
        "other": pgjax.Noise(jnp.array(reset), -jnp.array(policy)),
    }
    for name, noise in made.items():
        with parity.record(tmp_path / name) as rec:
            rec.noise(noise)
            rec.stage("s", x=X)
    assert (Recording.load(tmp_path / "torch").noise.policy == policy).all()  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    assert "noise: reset [4, 2], policy [5, 4, 2]" in str(Recording.load(tmp_path / "torch"))
    parity.compare(tmp_path / "torch", tmp_path / "jax").assert_ok()
    (failed,) = parity.compare(tmp_path / "torch", tmp_path / "other").failures
    assert (failed.stage, failed.leaf) == ("noise", "policy")


@pytest.mark.parametrize("half", [np.float16, jnp.bfloat16])
def test_functions_are_not_run_in_16_bits_and_say_so(tmp_path, half):
    short = jnp.asarray(X).astype(half)
    with parity.record(tmp_path / "a") as rec:
        rec.inputs(x=X)
        rec.stage("s", value=short)
        rec.stage("both", short=short, whole=X)
    with pytest.raises(
        UsageError, match="stage 's' was recorded in .*16, accepted is one in float64"
    ):
        parity.compare(tmp_path / "a", {"s": lambda x: x, "both": lambda x: x})
    theirs = Recording.load(tmp_path / "a")
    theirs.stages.pop("s")
    report = parity.compare(theirs, {"both": lambda x: {"short": x.astype(half), "whole": x}})
    assert {each.leaf for each in report.failures} == {"short"}


def test_how_loosely_16_bits_are_judged_is_said(tmp_path):
    ones = jnp.ones(3)
    for name, shift in (("a", 0.0), ("b", 0.12), ("c", 0.14)):
        bare(tmp_path / name, s={"x": (ones + shift).astype(jnp.bfloat16)})
    a, b, c = (tmp_path / name for name in "abc")
    report = parity.compare(a, b)
    assert report.ok
    assert "s/x (bfloat16, 0.125): arrays of 16 bits" in str(report)
    assert not parity.compare(a, c).ok


def test_an_output_of_16_bits_is_none_of_32_that_has_its_numbers(tmp_path):
    with parity.record(tmp_path / "a") as rec:
        inputs = {"x": np.ones(3)}
        rec.call("s", lambda x: x.astype(jnp.bfloat16), inputs, framework="jax")
    report = parity.compare(tmp_path / "a", {"s": lambda x: x.astype(jnp.float32)})
    assert {(m.reference, m.candidate) for m in report.failures} == {("bfloat16", "float32")}
