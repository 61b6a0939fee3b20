"""A run that one framework began goes on in the other: from the same numbers, by the same steps."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import parity
import pgjax
import pgtorch
from parity.runs import states
from parity.runs.agents import agent_run
from pgcore.config import TrainConfig

FRAMEWORKS = {"pgtorch": pgtorch, "pgjax": pgjax}
BEGUN = 4


@pytest.mark.parametrize(("leader", "agent"), [("pgtorch", "reparam"), ("pgjax", "reinforce")])
def test_what_one_framework_began_the_other_goes_on_with(leader, agent, tmp_path):
    config = TrainConfig(
        agent=agent,
        episodes_per_update=2,
        eval_episodes=2,
        until_update=BEGUN,
        run_dir=str(tmp_path / "run"),
    )
    FRAMEWORKS[leader].train(config)
    in_torch = pgtorch.load_checkpoint(tmp_path / "run").state
    in_jax = pgjax.load_checkpoint(tmp_path / "run").state

    # Both read the same state out of the folder, to the last bit, through maps of their own.
    single = agent_run(config, "float32", state=in_torch)
    converted = single.to_candidate(single.state)
    jax.tree.map(np.testing.assert_array_equal, converted, in_jax)
    assert int(in_torch.update) == int(in_jax.update) == BEGUN
    assert states.leaves(in_torch)["opt_state/step/linear1.weight"] == BEGUN

    # The next update passes the gate, and what follows stays within the yardstick.
    config = replace(config, until_update=None, run_dir=None)
    run = agent_run(config, state=in_torch, played=BEGUN)._asdict()
    parity.lockstep(**run, updates=2).assert_ok()
    parity.lockstep(**run, updates=4, mode="free").assert_ok()


def test_a_lost_moment_is_seen_at_the_next_update(tmp_path):
    config = TrainConfig(
        episodes_per_update=2, eval_episodes=2, until_update=BEGUN, run_dir=str(tmp_path / "run")
    )
    pgtorch.train(config)
    state = pgtorch.load_checkpoint(tmp_path / "run").state
    run = agent_run(replace(config, until_update=None, run_dir=None), state=state, played=BEGUN)

    def forgetful(state, noise):
        opt_state = state.opt_state._replace(nu=jax.tree.map(lambda v: 0 * v, state.opt_state.nu))
        return run.candidate_step(state._replace(opt_state=opt_state), noise)

    report = parity.lockstep(**run._replace(candidate_step=forgetful)._asdict(), updates=1)
    assert report.parted_at == 1
    assert {failure.stage for failure in report.failures} == {"update"}
