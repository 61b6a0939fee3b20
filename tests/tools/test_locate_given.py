"""`parity.first_divergence` where no operation is at fault: what is handed on, left out, moved."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch

import parity

RNG = np.random.default_rng(11)
NOISE = {"noise": RNG.normal(size=(5, 3)), "start": RNG.normal(size=3)}


def line(function, mark="# here"):
    """The line in a function that a comment marks."""
    lines, first = inspect.getsourcelines(function)
    (place,) = [number for number, text in enumerate(lines) if mark in text]
    return first + place


def test_an_output_that_is_handed_on_as_it_was_is_shown_where_what_belongs_there_is_made():
    def in_torch(time):
        after = time + 1.5
        return {"time": after, "late": after * after}

    def in_jax(time):
        after = time + 1.5  # here
        late = after * after
        return {"time": time, "late": late}

    found = parity.first_divergence(in_torch, in_jax, {"time": RNG.normal(size=4)})
    assert found.candidate.line == line(in_jax)


def test_an_output_that_is_a_number_is_shown_where_it_gets_its_name():
    def in_torch(x):
        return {"limit": torch.tensor(200.0), "twice": 2 * x}

    def in_jax(x):
        twice = 2 * x
        limit = jnp.asarray(500.0)
        found = {
            "limit": limit,  # here
        }
        found["twice"] = twice
        return found

    found = parity.first_divergence(in_torch, in_jax, {"x": RNG.normal(size=4)})
    assert found.candidate.line == line(in_jax)


def test_what_pytorch_hands_on_as_it_is_is_shown_in_the_function_of_the_same_name():
    def of_torch():
        def reset(noise):
            return noise, torch.cos(noise)  # here

        return reset

    def of_jax():
        def rounded(noise):
            return jnp.round(noise, 1)

        def reset(noise):
            return rounded(noise), jnp.cos(noise)

        return reset

    in_torch, in_jax = of_torch(), of_jax()

    def torch_side(noise):
        return dict(zip(("obs", "cos"), in_torch(noise), strict=True))

    def jax_side(noise):
        return dict(zip(("obs", "cos"), in_jax(noise), strict=True))

    found = parity.first_divergence(torch_side, jax_side, {"noise": RNG.normal(size=4)})
    assert found.reference.line == line(in_torch)


def stepped(time, limit=500.0):
    return jnp.where(time >= limit, 0.0, time)  # here


def test_a_default_is_not_blamed_for_a_number_that_is_wrong_outside_its_function_too():
    def in_torch(time):
        return {"left": torch.where(time >= 200.0, 0.0, time), "limit": torch.tensor(200.0)}

    def in_jax(time):
        limit = 500.0
        step = partial(stepped, limit=limit)
        left = step(time)
        return {"left": left, "limit": jnp.asarray(limit)}

    found = parity.first_divergence(in_torch, in_jax, {"time": RNG.uniform(150, 250, size=9)})
    assert found.candidate.line == line(stepped)


def test_ones_like_a_value_are_not_made_of_it():
    def in_torch(x):
        y = torch.sin(x)
        return {"y": y, "over": y > 0.5, "reward": torch.ones_like(y)}

    def in_jax(x):
        y = jnp.sin(x)
        over = y > 0.5
        reward = jnp.ones_like(y) * ~over  # here
        return {"y": y, "over": over, "reward": reward}

    found = parity.first_divergence(in_torch, in_jax, {"x": RNG.normal(size=40)})
    assert found.candidate.line == line(in_jax)


def drawn(state, noise):
    return jnp.tanh(state) + noise


def walk_in_torch(noise, start):
    at, samples = start, []
    for row in noise:
        sample = torch.tanh(at) + row
        at = at + torch.round(sample)
        samples.append(sample)
    return {"sample": torch.stack(samples), "at": at}


def walk_in_jax(noise, start):
    def step(at, row):
        sample = drawn(at, row)
        return at + jnp.round(sample), sample

    at, samples = jax.lax.scan(step, start, noise)
    return {"sample": samples, "at": at}


def test_noise_that_is_one_row_for_all_steps_is_blamed_and_no_step_that_takes_it():
    def in_jax(noise, start):
        same = jnp.broadcast_to(noise[:1], noise.shape)  # here
        return walk_in_jax(same, start)

    found = parity.first_divergence(walk_in_torch, in_jax, NOISE)
    assert found.candidate.line == line(in_jax)
    assert found.causes[0].trap == "R16"


def test_a_helper_that_a_loop_uses_rightly_is_not_blamed_where_it_is_called_once_more():
    def in_torch(noise, start):
        at, samples = start, []
        for row in noise[:3]:
            sample = torch.tanh(at) + row
            at = at + sample
            samples.append(sample)
        return {"sample": torch.stack(samples)}

    def in_jax(noise, start):
        def step(carry, row):
            at, number = carry
            sample = drawn(at, row)
            return (jnp.where(number < 3, at + sample, at), number + 1), (at, sample)

        _, (states, _) = jax.lax.scan(step, (start, 0), noise)
        return {"sample": drawn(states[:3], 0 * noise[:3])}  # here

    found = parity.first_divergence(in_torch, in_jax, NOISE)
    assert found.candidate.line == line(in_jax)


def learned_in_torch(obs, weight):
    def update(weight, rows, mask):
        rows = torch.where(mask[:, None], rows, 0.0)
        error = (torch.tanh(rows @ weight) * mask).sum()
        gradient = rows.T @ (torch.tanh(rows @ weight) - 1)
        return weight - 0.1 * gradient, error

    mask, losses = torch.arange(6) % 3 > 0, []
    for rows in obs:
        weight, loss = update(weight, rows, mask)
        losses.append(loss)
    return {"weight": weight, "losses": losses}


def test_an_operation_on_an_input_that_a_chain_of_updates_lacks_is_missing_where_an_update_begins():
    def in_jax(obs, weight):
        mask = jnp.arange(6) % 3 > 0

        def update(weight, rows):
            rate = 0.1  # here
            decay = 1.0
            scores = jnp.tanh(rows @ weight)
            error = jnp.where(mask, scores, 0).sum()
            gradient = rows.T @ (scores - 1)
            return decay * weight - rate * gradient, error

        weight, losses = jax.lax.scan(update, weight, obs)
        return {"weight": weight, "losses": [losses[i] for i in range(4)]}

    obs = RNG.normal(size=(4, 6, 3))
    obs[:, np.arange(6) % 3 == 0] = np.nan
    inputs = {"obs": obs, "weight": RNG.normal(size=3)}
    found = parity.first_divergence(learned_in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)


def test_a_number_that_is_counted_once_too_often_is_blamed_and_not_what_it_was_counted_from():
    def in_torch(x, count):
        count = count + 1
        return {"x": x / (1 - 0.9**count), "count": count}

    def in_jax(x, count):
        after = count + 1
        corrected = x / (1 - 0.9**after)
        told = x + 0.5
        twice = after + 1  # here
        return {"x": corrected + 0 * told, "count": twice}

    inputs = {"x": RNG.normal(size=4), "count": np.array(999)}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)


def test_in_a_chain_the_first_update_is_looked_into_first():
    """Much is wrong after it: parameters that are mended one by one, in every update."""

    def in_torch(weight, obs):
        losses = []
        for rows in obs:
            hidden = torch.tanh(rows @ weight)
            returns = hidden.flip(0).cumsum(0).flip(0)
            loss = (returns * hidden).mean()
            weight = weight - 0.1 * (rows.T @ (returns * (1 - hidden**2)))
            losses.append(loss)
        return {"weight": weight, "losses": torch.stack(losses)}

    def in_jax(weight, obs):
        def update(weight, rows):
            hidden = jnp.tanh(rows @ weight)
            returns = jnp.cumsum(hidden, 0)  # here
            loss = (returns * hidden).mean()
            weight = weight - 0.1 * (rows.T @ (returns * (1 - hidden**2)))
            return weight, loss

        weight, losses = jax.lax.scan(update, weight, obs)
        return {"weight": weight, "losses": losses}

    inputs = {"weight": RNG.normal(size=(3, 2)), "obs": RNG.normal(size=(4, 6, 3))}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)
    assert found.candidate.iteration in (None, 0)


def test_a_number_is_led_back_also_where_pytorch_has_it_with_the_other_sign():
    def in_torch(x, count):
        rate = 0.1 / (1.0 + float(count))
        return torch.add(x, x * x, alpha=-rate), count

    def in_jax(x, count):
        before = count - 1  # here
        later = 1.0 + before
        rate = 0.1 / later
        return x - rate * (x * x), count

    inputs = {"x": RNG.normal(size=4), "count": np.array(1000)}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)


def test_a_mask_that_is_computed_and_not_handed_on_is_missing_where_its_function_begins():
    def in_torch(obs, mask, weight):
        def update(obs):
            obs = torch.where(mask[:, None], obs, 0.0)
            scores = torch.tanh(obs @ weight)
            return obs.T @ (scores - 1)

        return update(obs)

    def in_jax(obs, mask, weight):
        def update(obs):
            cleaned = jnp.where(mask[:, None], obs, 0.0)  # here
            del cleaned
            unrelated = 1.0
            scores = jnp.tanh(obs @ weight)
            return obs.T @ (unrelated * scores - 1)

        return update(obs)

    mask = np.arange(6) % 3 > 0
    obs = RNG.normal(size=(6, 3))
    obs[~mask] = np.nan
    inputs = {"obs": obs, "mask": mask, "weight": RNG.normal(size=3)}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)


def test_of_what_is_made_of_a_right_value_the_step_that_pytorch_lacks_is_blamed():
    def in_torch(obs, weight):
        norms = []
        for rows in obs:
            norm = (rows @ weight).square().sum().sqrt()
            weight = weight / (norm + 1e-6)
            norms.append(norm)
        return {"norm": torch.stack(norms), "weight": weight}

    def in_jax(obs, weight):
        def update(weight, rows):
            norm = jnp.sqrt(jnp.square(rows @ weight).sum())
            divided = weight / (norm + 1e-6)
            told = jnp.minimum(norm, 0.1)  # here
            return divided, told

        weight, norms = jax.lax.scan(update, weight, obs)
        return {"norm": norms, "weight": weight}

    inputs = {"obs": RNG.normal(size=(3, 6, 3)), "weight": RNG.normal(size=3)}
    found = parity.first_divergence(in_torch, in_jax, inputs)
    assert found.candidate.line == line(in_jax)
