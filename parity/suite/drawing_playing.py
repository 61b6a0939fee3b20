"""Draws the inputs of what is played: steps of environments, rollouts, training steps, laws."""

from functools import cache

from parity import hazards
from parity.suite import environment, playing, runs
from parity.suite.family import Direct, Statistical
from parity.suite.stages import Example, Side, Stage, torch_side
from parity.suite.weights import under


def reset(rng, kind):
    return Example(environment.reset(), {"noise": rng.uniform(-0.05, 0.05, (5, 4))})


def step(rng, kind, dtypes):
    return Example(environment.step(), environment.states(rng, kind), precisions=dtypes)


def limited_step(rng, max_steps):
    inputs = environment.states(rng, "usual", max_steps)
    return Example(environment.step(max_steps), inputs, precisions=("float64",))


# --- rollouts, training steps, laws --------------------------------------------------------------


def _walk_params(rng, agent):
    return under("params", hazards.params(rng, agent, playing.CORRIDOR_SIZE, "initial"))


def rollout(rng, agent, early_exit):
    shape = (playing.NUM_STEPS, 3, playing.CORRIDOR_SIZE.num_actions)
    inputs = {
        **_walk_params(rng, agent),
        "start": rng.integers(-1, 2, (3, 1)).astype(float),
        "noise": hazards.noise(rng, agent, shape, "usual"),
    }
    stage = playing.rollout(agent, early_exit=early_exit)
    return Example(stage, inputs, precisions=("float64",))


def jax_train_step(rng, agent, kind):
    drawn = playing.drawn_in_jax(agent, rng.integers(2**31, size=3))
    inputs = {**_walk_params(rng, agent), **drawn._asdict()}
    reference = _torch_train_steps(agent)
    stage = Stage("train step, pgjax", reference, _jax_train_steps(agent), is_exact=True)
    # The noise is what the seeds draw, and noise near it is not.
    return Example(stage, inputs, precisions=("float64",), is_mappable=False)


def torch_train_step(rng, agent, kind):
    drawn = playing.drawn_in_torch(agent, rng.integers(2**31, size=3))
    inputs = {**_walk_params(rng, agent), **drawn._asdict()}
    own = torch_side(_torch_train_steps(agent, own_noise=True))
    return Direct("train step, pgtorch", torch_side(_torch_train_steps(agent)), own, inputs)


@cache
def _torch_train_steps(agent: str, *, own_noise: bool = False) -> Side:
    return lambda **inputs: playing.torch_steps(agent, **inputs, own_noise=own_noise)


@cache
def _jax_train_steps(agent: str) -> Side:
    return lambda **inputs: playing.jax_steps(agent, **inputs)


def first_updates(rng, package, kind):
    return runs.first_updates(package, int(rng.integers(2**31)))


def statistical(draws, package, agent, rng, kind):
    return Statistical(draws(package, agent), int(rng.integers(2**31)))
