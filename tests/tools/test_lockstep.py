"""`parity.lockstep` finds what is wrong in a run, and nothing in runs that are the same."""

import copy
import dataclasses
import json
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import parity
from parity import convert
from parity.cli import main
from parity.report import Report
from parity.runs import pictures, states
from parity.runs.agents import agent_run, recorded
from parity.runs.driver import _judged, judged_until
from parity.runs.free import FreeRun, distance
from parity.runs.proofs import Proof
from parity.runs.ranks import rank_test
from parity.runs.reports import Distances, Ledger, LockstepReport
from parity.runs.steps import require_same_state
from parity.tolerance import Comparison, Verdict
from pgcore.config import TrainConfig
from pgcore.errors import UsageError

RATE = 0.05
RNG = np.random.default_rng(0)
BATCHES = [{"x": RNG.normal(size=(8, 3)), "y": RNG.normal(size=8)} for _ in range(6)]
EPS_INSIDE = {"eps": 0.0, "eps_root": 1e-8}


def reference_step(state, batch):
    model, optimizer = state
    optimizer.zero_grad()
    loss = ((model(batch["x"])[:, 0] - batch["y"]) ** 2).mean()
    loss.backward()
    optimizer.step()
    return state, {"loss": loss.detach(), "sign": (model(batch["x"]) > 0)}


def make_candidate(adam, wrong_from=None):
    @jax.jit
    def step(state, batch):
        params, moments = state

        def loss_of(params):
            found = batch["x"] @ params["0"]["kernel"] + params["0"]["bias"]
            return ((found[:, 0] - batch["y"]) ** 2).mean()

        loss, slopes = jax.value_and_grad(loss_of)(params)
        if wrong_from is not None:
            late = moments[0].count >= wrong_from
            slopes = jax.tree.map(lambda g: jnp.where(late, g * (1 + 1e-6), g), slopes)
        change, moments = adam.update(slopes, moments)
        params = optax.apply_updates(params, change)
        signs = batch["x"] @ params["0"]["kernel"] + params["0"]["bias"] > 0
        return (params, moments), {"loss": loss, "sign": signs}

    return step


def make_sides(dtype=torch.float64, candidate=None):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 1)).to(dtype)
    state = (model, torch.optim.Adam(model.parameters(), lr=RATE))
    template = {"0": {"kernel": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}}
    adam = optax.adam(RATE)

    def to_candidate(state):
        params = convert.to_flax(state[0], template)
        return params, convert.optimizer_to_flax(state[1], state[0], adam.init(params))

    def to_reference(state):
        params, moments = state
        twin = copy.deepcopy(model).to(torch.float64 if dtype == torch.float64 else dtype)
        twin.load_state_dict(convert.to_torch(params, twin))
        optimizer = torch.optim.Adam(twin.parameters(), lr=RATE)
        optimizer.load_state_dict(convert.optimizer_to_torch(moments, optimizer, twin))
        return twin, optimizer

    step = candidate or make_candidate(adam)
    return [reference_step, step, to_candidate, to_reference, state, BATCHES]


# --- any two steps -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_a_right_port_agrees_at_every_update_and_the_given_state_stays(dtype):
    # pgjax's Adam, for optax's is not exact to float32.
    from pgjax.optim import adam

    class Chained:
        init = optax.chain(adam(RATE)).init

        @staticmethod
        def update(slopes, moments):
            change, after = adam(RATE).update(slopes, moments[0])
            return change, (after, *moments[1:])

    sides = make_sides(dtype, make_candidate(Chained))
    before = states.leaves(sides[4])
    report = parity.lockstep(*sides, updates=6)
    report.assert_ok()
    assert (report.updates, report.parted_at) == (6, None)
    assert [each.stage for each in report.report.comparisons] == ["loss", "sign", "update"]
    after = states.leaves(sides[4])
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_first_wrong_update_and_its_stage_are_named():
    report = parity.lockstep(
        *make_sides(candidate=make_candidate(optax.adam(RATE), wrong_from=3)), updates=6
    )
    assert not report.ok
    assert report.parted_at == 4
    assert {failure.stage for failure in report.failures} == {"update"}
    assert any("exp_avg/0.weight" in failure.leaf for failure in report.failures)
    assert "first parts at update 4, stage 'update'; 3 of 6 updates part" in str(report)
    with pytest.raises(AssertionError, match="update 4"):
        report.assert_ok()


def test_a_float32_bias_correction_fails_the_rule_for_rounding_and_passes_the_gate():
    # The change of the parameters from zero: added to larger ones its error can't be seen.
    def sides(dtype):
        parameter = torch.nn.Parameter(torch.zeros(4, dtype=dtype))
        holder = torch.nn.ParameterDict({"p": parameter})
        state = {"params": holder, "adam": torch.optim.Adam([parameter], lr=RATE)}

        def reference_step(state, slope):
            state["params"]["p"].grad = slope.clone()
            state["adam"].step()
            return state

        adam = optax.adam(RATE)

        def candidate_step(state, slope):
            change, moments = adam.update({"p": slope}, state[1])
            return optax.apply_updates(state[0], change), moments

        def to_candidate(state):
            params = {"p": jnp.array(state["params"]["p"].detach().numpy())}
            found = state["adam"].state.get(state["params"]["p"], {})
            moments = adam.init(params)
            if found:
                moments = (
                    optax.ScaleByAdamState(
                        jnp.array(int(found["step"]), jnp.int32),
                        {"p": jnp.array(found["exp_avg"].numpy())},
                        {"p": jnp.array(found["exp_avg_sq"].numpy())},
                    ),
                    *moments[1:],
                )
            return params, moments

        def to_reference(state):
            params, (moments, *_) = state
            own = torch.nn.Parameter(torch.tensor(np.array(params["p"])))
            optimizer = torch.optim.Adam([own], lr=RATE)
            optimizer.state[own] = {
                "step": torch.tensor(float(moments.count)),
                "exp_avg": torch.tensor(np.array(moments.mu["p"])),
                "exp_avg_sq": torch.tensor(np.array(moments.nu["p"])),
            }
            return {"params": torch.nn.ParameterDict({"p": own}), "adam": optimizer}

        slopes = [np.array([0.5, -0.25, 0.125, 1.0])]
        return reference_step, candidate_step, to_candidate, to_reference, state, slopes

    parity.lockstep(*sides(torch.float64), updates=1).assert_ok()
    report = parity.lockstep(*sides(torch.float32), updates=1)
    assert [failure.stage for failure in report.failures] == ["update"]
    assert report.failures[0].leaf == "params/p"


def test_what_cancels_is_held_to_the_measured_response():
    # x − y is 1e-9 of each: an ulp of x is 1e-7 of the difference, far above the plain share.
    def reference(state, y):
        return {"x": 2 * state["x"]}, {"difference": (state["x"] * 0.7 - y * 0.7)}

    def candidate(state, y):
        return {"x": 2 * state["x"]}, {"difference": (state["x"] - y) * 0.7}

    state = {"x": torch.linspace(1.1, 1.9, 9, dtype=torch.float64)}
    report = parity.lockstep(
        reference,
        candidate,
        lambda state: {"x": jnp.array(state["x"].numpy())},
        lambda state: {"x": torch.tensor(np.array(state["x"]))},
        state,
        [np.linspace(1.1, 1.9, 9) - 1e-9],
        updates=1,
    )
    report.assert_ok()
    assert "1 arrays were further apart" in str(report)
    # The verdict that is kept is that which came closest to what is allowed.
    assert report.report.comparisons[0].verdicts[0].term in ("rounding", "inputs")


def test_the_verdict_that_came_closest_is_kept():
    ledger = Ledger("float64")
    for update, error in enumerate((1.0, 3.0, 2.0), 1):
        verdict = Verdict("loss/value", "float64", "candidate", error, 4.0, "scale")
        ledger.add(update, Comparison("", [], [verdict]))
    verdict = Verdict("total", "float64", "candidate", 3.5, 4.0, "scale")
    ledger.add(4, Comparison("", [], [verdict._replace(leaf="update/total")]))
    loss, update = ledger.report("run").comparisons
    assert loss.verdicts[0].error == 3.0
    # The line that names the closest of all names its stage too.
    assert "(update: total, 3.5 of 4, by its share" in str(ledger.report("run"))


def test_a_step_may_return_its_state_alone():
    sides = make_sides()
    step = sides[1]
    sides[0] = lambda state, batch: reference_step(state, batch)[0]
    sides[1] = lambda state, batch: step(state, batch)[0]
    report = parity.lockstep(*sides, updates=2)
    report.assert_ok()
    assert [each.stage for each in report.report.comparisons] == ["update"]


def test_a_free_run_is_held_against_the_reference_nudged_by_an_ulp():
    report = parity.lockstep(*make_sides(), updates=6, mode="free")
    report.assert_ok()
    distances = report.distances
    assert distances.candidate.shape == (6,)
    assert distances.nudged.shape == (8, 6)
    # An ulp of each number is a relative 1.1e-16 to 2.2e-16 of it, and of their norm.
    assert (distances.nudged[:, 0] > 1e-17).all()
    assert (distances.nudged[:, 0] < 1e-15).all()


def test_what_the_first_update_amplifies_inside_is_rounding_too():
    """A chaotic map, 20 times in an update: it makes 10⁴ of the rounding of its first products."""

    def of_torch(state, _):
        y = state["params"]
        for _ in range(20):
            y = 3.9 * y * (1 - y)
        return {"params": y}

    def of_jax(state, _):
        y = state["params"]
        for _ in range(20):
            y = 3.9 * (y - y * y)
        return {"params": y}

    state = {"params": torch.tensor(RNG.uniform(0.1, 0.9, size=50))}
    carry = [lambda s: {"params": jnp.array(s["params"])}, lambda s: {"params": from_jax(s)}]
    sides = [of_torch, jax.jit(of_jax), *carry, state, [None] * 2]
    report = parity.lockstep(*sides, updates=2, mode="free")
    report.assert_ok()
    assert report.distances.candidate[0] > 1e-14  # 50 ulps


def from_jax(state):
    return torch.tensor(np.array(state["params"]))


def test_epsilon_inside_the_root_goes_farther_than_nudges_do():
    wrong = make_candidate(optax.adam(RATE, **EPS_INSIDE))
    report = parity.lockstep(*make_sides(candidate=wrong), updates=6, mode="free")
    assert not report.ok
    assert report.parted_at == 1
    assert report.failures[0].leaf.startswith("distance")


def test_a_decision_that_the_reference_would_not_make_there_is_a_failure():
    right = make_candidate(optax.adam(RATE))

    def step(state, batch):
        state, outputs = right(state, batch)
        return state, {**outputs, "sign": ~outputs["sign"]}

    report = parity.lockstep(*make_sides(candidate=step), updates=3, mode="free")
    assert report.distances.parted == report.parted_at == 1
    assert [failure.leaf for failure in report.failures] == ["decisions at update"]


def test_a_state_that_blows_up_is_no_agreement():
    sides = make_sides()
    step, right = sides[0], sides[1]

    def reference(state, batch):
        state, outputs = step(state, batch)
        with torch.no_grad():
            state[0][0].weight *= torch.nan
        return state, outputs

    def candidate(state, batch):
        (params, moments), outputs = right(state, batch)
        params = {"0": {**params["0"], "kernel": params["0"]["kernel"] * jnp.nan}}
        return (params, moments), outputs

    report = parity.lockstep(reference, candidate, *sides[2:], updates=2, mode="free")
    assert not report.ok
    assert report.parted_at == 1


def test_a_wrong_count_in_the_state_is_a_wrong_decision():
    right = make_candidate(optax.adam(RATE))

    def step(state, batch):
        (params, (moments, *rest)), outputs = right(state, batch)
        return (params, (moments._replace(count=moments.count + 1), *rest)), outputs

    report = parity.lockstep(*make_sides(candidate=step), updates=2, mode="free")
    assert report.parted_at == 1
    assert [failure.leaf for failure in report.failures] == ["decisions at update"]


def parting(candidate, nudged, nudged_parted, parted=None):
    found = Distances(np.array(candidate), np.array(nudged), parted, nudged_parted)
    return _judged(FreeRun("float64", len(candidate), found))


def test_draws_that_decided_otherwise_excuse_nothing():
    near, far = [1.0, 1.0, 1.0], [1.0, 100.0, 100.0]
    # 17 is above 16 times 1, which the draw that still decides alike allows at update 2.
    _, parted_at = parting([1.0, 17.0, 17.0], [near, far], (None, 2))
    assert parted_at == 2
    _, parted_at = parting([1.0, 15.0, 15.0], [near, far], (None, 2))
    assert parted_at is None
    # Where none decides alike any more, nothing is judged.
    assert parting([1.0, 1.0, 1e9], [far, far], (3, 2))[1] is None
    assert judged_until(Distances(None, np.ones((2, 3)), None, (3, 2))) == 2
    assert judged_until(Distances(None, np.ones((2, 3)), 2, (3, None))) == 1


def test_the_yardstick_alone_needs_no_candidate():
    sides = make_sides()
    sides[1] = None
    report = parity.lockstep(*sides, updates=3, mode="nudged")
    assert report.ok
    assert report.distances.candidate is None
    assert report.distances.nudged.shape == (8, 3)
    with pytest.raises(UsageError, match="candidate_step is None"):
        parity.lockstep(*sides, updates=3)


def test_a_run_ends_when_it_is_told_to():
    seen = []
    report = parity.lockstep(
        *make_sides(),
        updates=6,
        until=lambda outputs: len(seen) == 2,
        callback=lambda update, outputs: seen.append((update, float(outputs["loss"]))),
    )
    assert report.updates == 2
    assert [update for update, _ in seen] == [1, 2]


@dataclasses.dataclass
class Ema:
    value: object


MODEL = torch.nn.Linear(3, 1).double()


def listing():
    optimizer = torch.optim.Adam(MODEL.parameters())
    optimizer.state[MODEL.weight]["steps"] = [torch.zeros(2)]
    return optimizer


def dropping_out(state, batch):
    state, outputs = reference_step(state, batch)
    return state, {"loss": outputs["loss"] * torch.rand(())}


def accumulating(state, batch):
    model, optimizer = state
    ((model(batch["x"])[:, 0] - batch["y"]) ** 2).mean().backward()
    optimizer.step()
    return state


def lossy(state):
    params, (moments, *rest) = state
    return params, (moments._replace(mu=jax.tree.map(lambda m: m * 0, moments.mu)), *rest)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {3: lambda s: make_sides()[3](lossy(s))},
            r"exp_avg/0\.weight is float64\[1, 3\] with \S+ at \[0, 0\] before and .* with -?0\.0",
        ),
        ({4: (MODEL, torch.optim.LBFGS(MODEL.parameters()))}, "the state has LBFGS's history"),
        ({4: (MODEL, listing())}, "the state has Adam's steps, accepted are optimizers that"),
        ({5: iter(BATCHES)}, "inputs is 'list_iterator', accepted is a sequence"),
        ({5: None}, "inputs is 'NoneType', accepted is a sequence"),
        ({5: {0: BATCHES[0]}}, "inputs is 'dict', accepted is a sequence"),
        ({0: lambda s, b: "done"}, "what reference_step returns has the form leaf"),
        ({1: lambda s, b: (s, 1, 2)}, "what candidate_step returns has the form"),
        (
            {4: {"x": torch.zeros(2, dtype=torch.float64), "of": (x for x in ())}},
            "a generator at of",
        ),
        ({5: BATCHES[:1]}, "number of inputs is 1, accepted is at least 3"),
        ({0: dropping_out}, "gives another .* the second time, from the same state and inputs"),
        ({0: accumulating}, r"than from a copy of it.*optimizer\.zero_grad"),
        ({0: lambda s, b: s, 1: lambda s, b: s}, "no update changed reference_step's state"),
        ({0: lambda s, b: (s, {"update": {"0": {"0.weight": b["y"]}}})}, "outputs have update/0/0"),
        ({0: lambda s, b: (s, {"ema": Ema(b["y"])})}, "has a Ema at ema"),
        (
            {4: {"params": torch.zeros(2), "x": torch.zeros(2).double()}},
            "params float32, x float64",
        ),
        ({4: {"n": torch.zeros(2, dtype=torch.int64)}}, "floating arrays of the state are none"),
        ({4: {"z": torch.zeros(2, dtype=torch.complex64)}}, "complex numbers at z"),
    ],
    ids=[
        *("lossy adapter", "LBFGS", "list", "iterator of inputs", "no inputs", "inputs by number"),
        *("no state", "triple", "iterator", "too few inputs", "dropout"),
        *("no zero_grad", "stands still", "same name", "unknown object", "mixed", "integers"),
        "complex",
    ],
)
def test_what_does_not_fit_is_said(change, words):
    sides = make_sides()
    for index, value in change.items():
        sides[index] = value
    with pytest.raises(UsageError, match=words):
        parity.lockstep(*sides, updates=3)


def test_the_number_that_did_not_come_back_is_named_and_not_one_that_is_nan_on_both_sides():
    before, after = (np.array([np.nan, 1.0, 2.0]), np.array([np.nan, 1.0, 3.0]))
    with pytest.raises(UsageError, match=r"with 2\.0 at \[2\] before and .* with 3\.0 at \[2\]"):
        require_same_state({"x": before}, {"x": after})
    require_same_state({"x": before}, {"x": before.copy(), "new": np.zeros(2)})
    with pytest.raises(UsageError, match="has new, which the state does not have"):
        require_same_state({"x": before}, {"x": before, "new": np.ones(2)})


def test_an_unknown_mode_is_said():
    with pytest.raises(UsageError, match="mode"):
        parity.lockstep(*make_sides(), updates=1, mode="resynch")  # pyright: ignore[reportArgumentType]


# --- states --------------------------------------------------------------------------------------


def test_a_state_is_named_by_its_parameters_and_its_count_is_an_integer():
    model, optimizer = make_sides()[4]
    reference_step((model, optimizer), {k: torch.tensor(v) for k, v in BATCHES[0].items()})
    found = states.leaves({"params": model, "opt": optimizer})
    assert {*found} == {
        *(f"params/0.{name}" for name in ("weight", "bias")),
        *(
            f"opt/{key}/0.{name}"
            for key, name in product(("exp_avg", "exp_avg_sq", "step"), ("weight", "bias"))
        ),
    }
    assert found["opt/step/0.bias"] == 1
    assert found["opt/step/0.bias"].dtype == np.int64


def test_a_copy_of_a_state_steps_by_itself_in_another_precision():
    state = make_sides()[4]
    batch = {k: torch.tensor(v) for k, v in BATCHES[0].items()}
    reference_step(state, batch)
    before = states.leaves(state)
    single = {k: x.astype(np.float32) if x.dtype == float else x for k, x in before.items()}
    own = states.replaced(state, single)
    reference_step(own, {k: x.float() for k, x in batch.items()})
    after = states.leaves(own)
    assert after["0/0.weight"].dtype == np.float32
    assert after["1/step/0.weight"] == 2
    assert all(np.array_equal(states.leaves(state)[name], x) for name, x in before.items())


def test_gradients_are_no_state():
    state = make_sides()[4]
    reference_step(state, {k: torch.tensor(v) for k, v in BATCHES[0].items()})
    own = states.replaced(state, states.leaves(state))
    assert all(parameter.grad is None for parameter in own[0].parameters())


def test_a_distance_that_is_no_number_is_infinite():
    assert distance({"params": np.array([np.nan])}, {"params": np.array([1.0])}) == np.inf
    assert distance({"params": np.array([3.0, 4.0])}, {"params": np.array([3.0, 3.0])}) == (
        pytest.approx(1 / np.sqrt(18), rel=1e-12)
    )


def test_one_ulp_moves_every_number_but_zero_to_a_neighbour():
    array = np.array([1.0, -2.0, 0.0, 1e-300])
    moved = states.one_ulp({"x": array, "n": np.array([3])}, np.random.default_rng(0))
    is_neighbour = [
        y in (np.nextafter(x, -np.inf), np.nextafter(x, np.inf)) if x else y == 0
        for x, y in zip(array, moved["x"], strict=True)
    ]
    assert all(is_neighbour)
    assert moved["n"] == [3]


# --- many runs -----------------------------------------------------------------------------------


def run_of_rank(rank):
    nudged = np.array([[float(2 * place)] for place in range(1, 9)])
    return Distances(np.array([2.0 * rank - 1]), nudged)


def test_ranks_are_places_among_the_nudged_runs():
    assert rank_test([run_of_rank(1)]).ranks == (1,)
    assert rank_test([run_of_rank(9)]).ranks == (9,)
    assert rank_test([run_of_rank(4)] * 2).ranks == (4, 4)


def test_the_p_value_is_that_of_counting_all_ranks():
    found = rank_test([run_of_rank(8), run_of_rank(9), run_of_rank(7)])
    as_high = sum(sum(ranks) >= 24 for ranks in product(range(1, 10), repeat=3))
    assert found.p_value == pytest.approx(as_high / 9**3, rel=1e-12)


def test_farther_in_every_run_is_too_far_and_no_farther_is_not():
    assert not rank_test([run_of_rank(9)] * 10).ok
    assert rank_test([run_of_rank(rank) for rank in range(1, 10)]).ok
    with pytest.raises(UsageError, match="candidate"):
        rank_test([Distances(None, np.ones((8, 1)))])


def test_a_distance_that_is_no_number_is_the_farthest_and_other_misuse_is_said():
    run = Distances(np.array([np.nan]), np.ones((8, 1)))
    assert rank_test([run]).ranks == (9,)
    with pytest.raises(
        UsageError, match="updates is 0, accepted is None or an integer from 1 to 1"
    ):
        rank_test([run], updates=0)
    with pytest.raises(UsageError, match="draws of the runs"):
        rank_test([run, Distances(np.ones(1), np.ones((4, 1)))])


# --- our agents ----------------------------------------------------------------------------------

CONFIGS = {
    "8 episodes, clipped": TrainConfig(seed=1, max_grad_norm=0.5),
    "1 episode": TrainConfig(agent="reparam", episodes_per_update=1, normalize="episode"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_our_agents_agree_at_every_stage_of_every_update(name):
    config = CONFIGS[name]
    report = parity.lockstep(**agent_run(config)._asdict(), updates=4)
    report.assert_ok()
    stages = [each.stage for each in report.report.comparisons]
    clipped = ["clipped gradient"] if config.max_grad_norm else []
    assert stages == [
        *("act", "network", "log_prob", "entropy", "returns", "advantages", "loss", "gradient"),
        *(*clipped, "metrics", "update"),
    ]


def test_optax_adam_in_float32_fails_at_stage_update_and_ours_does_not():
    config = TrainConfig(agent="reparam", episodes_per_update=2)
    fed = recorded(config, 2)
    parity.lockstep(**agent_run(config, "float32", fed=fed)._asdict(), updates=2).assert_ok()
    theirs = agent_run(config, "float32", fed=fed, optimizer=optax.adam(config.learning_rate))
    report = parity.lockstep(**theirs._asdict(), updates=2)
    assert report.parted_at == 1
    assert {failure.stage for failure in report.failures} == {"update"}


def test_epsilon_inside_the_root_fails_a_run_of_our_agents():
    config = TrainConfig(episodes_per_update=2)
    inside = optax.adam(config.learning_rate, **EPS_INSIDE)
    run = agent_run(config, optimizer=inside)
    assert not parity.lockstep(**run._asdict(), updates=3, mode="free").ok


@pytest.mark.takes_long
def test_the_command_runs_all_three_and_draws_what_it_found(tmp_path, capsys):
    assert main(["lockstep", "--updates", "2", "--out", str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert "every stage of every update is the same" in said
    assert "every action of all 2 updates is the same" in said
    written = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert written == ["curves.png", "distances.png", "lockstep.json"]
    figures = json.loads((tmp_path / "new" / "lockstep.json").read_text())
    assert figures["ok"]
    assert [(run["mode"], run["dtype"]) for run in figures["runs"]] == [
        ("resync", "float64"),
        ("free", "float64"),
        ("free", "float32"),
    ]
    assert len(figures["runs"][1]["distances"]["candidate"]) == 2


@pytest.mark.parametrize("draw", [pictures.draw_curves, pictures.draw_distances])
def test_all_words_of_a_picture_are_on_it(draw, monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: figures.append(figure))
    found = Distances(np.full(3, 1e-9), np.full((8, 3), 1e-8), 2, (3,) * 8)
    report = LockstepReport(Report("run", [], []), "free", "float32", 3, None, found)
    draw(tmp_path / "x.png", "reinforce", [Proof(report, np.ones(3), np.ones(3), 9, False)] * 2)
    [figure] = figures
    figure.draw_without_rendering()
    texts = figure.legends[0].get_texts()
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
    for text in texts:
        box, whole = text.get_window_extent(), figure.bbox
        is_inside = whole.x0 <= box.x0 <= box.x1 <= whole.x1 and (
            whole.y0 <= box.y0 <= box.y1 <= whole.y1
        )
        assert is_inside, text.get_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--updates", "0"], "updates is 0"),
        (["--episodes-per-update", "0"], "episodes_per_update is 0"),
        (["--out", __file__], "is a file"),
    ],
    ids=["updates", "episodes", "out"],
)
def test_the_command_says_what_it_does_not_take(options, words, capsys):
    assert main(["lockstep", *options]) == 2
    assert words in capsys.readouterr().err
