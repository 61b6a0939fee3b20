"""The PyTorch that was written to be fast learns what the readable one does."""

import pytest
import torch

import pgtorch
from benchmarks.torch_twin import BLOCK, NUM_STEPS, ROWS, Twin, make_train_step
from parity.tolerance import GATE
from pgtorch.envs import cartpole

NUM_ENVS, DISCOUNT = 64, 0.97


@torch.no_grad()
def played(dtype, *, compiled=False):
    """A twin after a rollout of a policy that holds the pole a while, and the noise it was on."""
    policy = pgtorch.make_policy("reinforce", 4, 2)
    module = policy.init(torch.Generator().manual_seed(3)).to(dtype)
    key = torch.Generator().manual_seed(4)
    twin = Twin(NUM_ENVS, DISCOUNT, compiled=compiled, dtype=dtype)
    noise = policy.draw_noise(key, NUM_STEPS, NUM_ENVS).to(dtype)
    twin.load(module)
    twin.record[0, 1:5, 0] = cartpole.draw_reset(key, NUM_ENVS).to(dtype).T[ROWS]

    def draw(block):
        steps = noise[block * BLOCK : (block + 1) * BLOCK]
        twin.uniform[0] = steps[..., 1] - steps[..., 0]

    return policy, module, twin, noise, twin.rollout(draw)


def columns(twin, num_blocks):
    """Its states `[T, B, 4]`, as pgtorch has them, those after each step, actions and mask."""
    states = twin.record[:num_blocks, 1:5][:, ROWS].permute(0, 2, 3, 1)
    before, after = (part.reshape(-1, NUM_ENVS, 4) for part in (states[:, :-1], states[:, 1:]))
    steps = num_blocks * BLOCK
    return before, after, (twin.push[:steps] > 0).long(), twin.mask[:steps] > 0


def near(ours, theirs):
    return (ours - theirs).abs().max() <= GATE * theirs.abs().max()


@pytest.mark.parametrize("compiled", [False, True], ids=["by hand", "to be compiled"])
def test_each_step_is_pgtorchs_on_the_same_noise(compiled, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)  # it takes long
    policy, module, twin, noise, num_blocks = played(torch.float64, compiled=compiled)
    before, after, action, mask = columns(twin, num_blocks)
    with torch.no_grad():
        sample = policy.sample(policy.apply(module, before), noise[: len(before)])
    assert torch.equal(policy.action(sample)[mask], action[mask])
    assert 0 < action[mask].double().mean() < 1
    time = torch.zeros(before.shape[:2], dtype=torch.int32)
    state, _, _, fell, _ = cartpole.step(cartpole.CartPoleState(before, time), action)
    assert near(after[mask], state.physics[mask])
    # An episode goes on exactly as long as nothing has fallen.
    lengths = mask.sum(dim=0)
    assert torch.equal(mask, torch.arange(len(mask))[:, None] < lengths)
    assert fell[lengths - 1, torch.arange(NUM_ENVS)].all()
    assert not (mask[1:] & fell[:-1]).any()
    assert lengths.max() > 2 * BLOCK  # several blocks, or the test shows little


def test_its_gradient_is_autograds():
    policy, module, twin, _, num_blocks = played(torch.float64)
    before, _, action, mask = columns(twin, num_blocks)
    config = pgtorch.TrainConfig(discount=DISCOUNT, normalize="batch")
    trajectory = pgtorch.Trajectory(
        before, action, action, mask.double(), mask, torch.ones(NUM_ENVS, dtype=torch.bool)
    )
    with torch.no_grad():
        num_steps = twin.advantages(num_blocks)
        twin.backward(num_blocks)
        twin.store_grads(module)
    ours = [p.grad.clone() for p in module.parameters()]
    optimizer = pgtorch.make_optimizer(config)
    state = pgtorch.TrainState(module, optimizer(module.parameters()), torch.zeros(()))
    _, metrics = pgtorch.make_update_step(policy, optimizer, config)(state, trajectory)
    assert num_steps == metrics.num_steps == mask.sum()
    for our, parameter in zip(ours, module.parameters(), strict=True):
        assert near(our, parameter.grad)


def test_it_learns():
    torch.manual_seed(0)
    module = pgtorch.make_policy("reinforce", 4, 2).init(torch.Generator().manual_seed(0))
    step = make_train_step("reinforce", NUM_ENVS)
    steps = [step(module) for _ in range(25)]
    assert sum(steps[-3:]) > 3 * sum(steps[:3])


def test_it_is_of_the_softmax_agent_alone():
    with pytest.raises(ValueError, match="reparam"):
        make_train_step("reparam", NUM_ENVS)
