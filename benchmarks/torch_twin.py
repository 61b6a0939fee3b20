"""Our REINFORCE update in PyTorch for speed: B CartPoles as tensors, and no autograd.

    python -m benchmarks.torch_twin [--compiled]

The same algorithm as `pgtorch.make_train_step`, arranged for few kernels and a small cache:
features first, `[features, columns]`; biases as one more input that is always 1; two actions, so
that only the difference of their scores is kept; a backward pass by hand, which computes the
activations anew in pieces that stay in the cache. Steps go in blocks of 20, each with its own
noise, after which it is seen which episodes ended.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import pgtorch
from pgcore.envs.gym import CARTPOLE_RESET_BOUND
from pgtorch.envs import cartpole as cp

NUM_STEPS, BLOCK, COLUMNS = 500, 20, 8192
NUM_BLOCKS = NUM_STEPS // BLOCK
ROWS = [0, 2, 1, 3]
"""Where pgtorch's (x, ẋ, θ, θ̇) stand among our (x, θ, ẋ, θ̇): rates two rows below."""
PUSH = cp.FORCE / cp.TOTAL_MASS
TINY = torch.finfo(torch.float32).tiny
relu_backward: Any = torch.ops.aten.threshold_backward.grad_input


class Twin:
    """The buffers of B episodes, and the stages of one update on them."""

    def __init__(self, num_envs: int, discount: float, compiled: bool, dtype: torch.dtype):
        self.num_envs, self.discount, self.dtype = num_envs, discount, dtype
        width = min(COLUMNS, BLOCK * num_envs)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype)

        # Rows 1, x, θ, ẋ, θ̇, ẍ, θ̈: the network sees the first five, and a step adds to rows 1–4
        # TIME_STEP times rows 3–6. Time is inside a block: [5, BLOCK · B] is one matrix.
        self.record = zeros(NUM_BLOCKS, 7, BLOCK + 1, num_envs)
        self.record[:, 0] = 1
        self.push, self.mask, self.returns = (zeros(NUM_STEPS, num_envs) for _ in range(3))
        self.uniform = zeros(2, BLOCK, num_envs)
        self.hidden = zeros(25, num_envs), zeros(13, num_envs)
        self.wide = zeros(25, width), zeros(13, width), zeros(24, width), zeros(12, width)
        self.hidden[0][0] = self.hidden[1][0] = self.wide[0][0] = self.wide[1][0] = 1
        self.weights = zeros(24, 5), zeros(12, 25), zeros(1, 13)
        self.grads = zeros(24, 5), zeros(12, 25), zeros(1, 13)
        self.score, self.scratch = zeros(1, num_envs), zeros(6, num_envs)
        self.full_push = torch.full((num_envs,), PUSH, dtype=dtype)
        self.inertia = torch.full((num_envs,), cp.HALF_POLE_LENGTH * 4 / 3, dtype=dtype)
        self.limits = torch.tensor([cp.X_LIMIT, cp.THETA_LIMIT_RAD], dtype=dtype)[:, None, None]
        # Making a view costs as much as a small kernel, so all of them are made here.
        self.views = [
            (r[:5, k], r[1:5, k], r[3:7, k], r[1:5, k + 1], r[2, k], r[4, k], r[5, k], r[6, k])
            for r in self.record
            for k in range(BLOCK)
        ]
        self.noise_rows = self.uniform[0].split(1)
        self.push_rows = self.push.unbind()
        self.compiled_step = _compiled_step() if compiled else None

    def load(self, module: Any) -> None:
        """The module's weights, each with its bias as the column of the input that is 1."""
        last = module.linear3
        difference = last.weight[1:] - last.weight[:1], last.bias[1:] - last.bias[:1]
        first = module.linear1.weight[:, ROWS], module.linear1.bias
        layers = first, (module.linear2.weight, module.linear2.bias), difference
        for ours, (weight, bias) in zip(self.weights, layers, strict=True):
            torch.cat((bias[:, None], weight), dim=1, out=ours)

    def store_grads(self, module: Any) -> None:
        """The gradients as the module has them; the difference of logits is that of two rows."""
        first, second, third = self.grads
        shaped = first[:, [0, *(1 + i for i in ROWS)]], second, torch.cat((-third, third))
        for layer, grad in zip(module.children(), shaped, strict=True):
            layer.weight.grad, layer.bias.grad = grad[:, 1:].contiguous(), grad[:, 0].contiguous()

    def draw_noise(self) -> None:
        """Gumbel pairs −log E of exponential E = −log U, as difference: log(E₀ / E₁)."""
        self.uniform.uniform_(TINY, 1.0).log_()
        torch.div(self.uniform[0], self.uniform[1], out=self.uniform[0]).log_()

    def play_block(self, i: int) -> None:
        """20 steps of all environments, the ended ones too: `cartpole.step` in 10 kernels."""
        (w1, w2, w3), (h1, h2), score = self.weights, self.hidden, self.score
        out1, out2, flat_score = h1[1:], h2[1:], score[0]
        sin, cos, push, torque, inertia, square = self.scratch.unbind()
        begin = i * BLOCK
        for k in range(BLOCK):
            obs, state, rates, after, theta, theta_dot, x_acc, theta_acc = self.views[begin + k]
            force, noise = self.push_rows[begin + k], self.noise_rows[k]
            if self.compiled_step is not None:
                new_state, new_force = self.compiled_step(obs, noise, w1, w2, w3)
                after.copy_(new_state)
                force.copy_(new_force)
                continue
            torch.relu_(torch.mm(w1, obs, out=out1))
            torch.relu_(torch.mm(w2, h1, out=out2))
            torch.addmm(noise, w3, h2, out=score)
            torch.copysign(self.full_push, flat_score, out=force)  # action 1 where score > 0
            torch.sin(theta, out=sin)
            torch.cos(theta, out=cos)
            torch.mul(theta_dot, theta_dot, out=square)
            torch.addcmul(force, square, sin, value=cp.POLE_MASS_LENGTH / cp.TOTAL_MASS, out=push)
            torch.mul(sin, cp.GRAVITY, out=torque)
            torch.addcmul(torque, push, cos, value=-1.0, out=torque)
            factor = -cp.HALF_POLE_LENGTH * cp.POLE_MASS / cp.TOTAL_MASS
            torch.addcmul(self.inertia, cos, cos, value=factor, out=inertia)
            torch.div(torque, inertia, out=theta_acc)
            factor = -cp.POLE_MASS_LENGTH / cp.TOTAL_MASS
            torch.addcmul(push, theta_acc, cos, value=factor, out=x_acc)
            torch.add(state, rates, alpha=cp.TIME_STEP, out=after)

    def rollout(self, draw: Callable[[int], None]) -> int:
        """Plays from `record[0, 1:5, 0]` until all have ended: the number of blocks."""
        running = torch.ones(self.num_envs, dtype=self.dtype)
        for i, block in enumerate(self.record):
            draw(i)
            self.play_block(i)
            inside = (block[1:3, 1:].abs() <= self.limits).all(dim=0)
            mask = self.mask[i * BLOCK : (i + 1) * BLOCK]
            mask[0], mask[1:] = running, inside[:-1]
            torch.cumprod(mask, dim=0, out=mask)
            running = mask[-1] * inside[-1]
            if i + 1 == NUM_BLOCKS or not running.any():
                return i + 1
            # An ended episode goes on from rest: left alone it might overflow in 500 steps.
            torch.mul(block[1:5, -1], running, out=self.record[i + 1, 1:5, 0])
        return NUM_BLOCKS

    def advantages(self, num_blocks: int) -> int:
        """G_t = m_t + discount · m_t · G_{t+1}, then A / B in place; the number of steps."""
        mask, returns = (x[: num_blocks * BLOCK] for x in (self.mask, self.returns))
        returns[-1] = mask[-1]
        rows, masks = returns.unbind(), mask.unbind()
        for t in reversed(range(len(rows) - 1)):
            torch.addcmul(masks[t], masks[t], rows[t + 1], value=self.discount, out=rows[t])
        num_steps = mask.sum(dtype=torch.float64)
        largest = returns.max()
        returns.sub_(returns.sum(dtype=torch.float64) / num_steps).mul_(mask)
        std = (torch.linalg.vector_norm(returns, dtype=torch.float64) / num_steps.sqrt()).item()
        returns.mul_(1 / (std * self.num_envs) if std > 1e-5 * float(largest) else 0.0)
        return int(num_steps)

    def backward(self, num_blocks: int) -> None:
        """∇ of −(1/B) Σ A · log π, from δ = (A/B) · (p₁ − action) at the logits' difference."""
        (w1, w2, w3), grads = self.weights, self.grads
        for grad in grads:
            grad.zero_()
        into_h1, into_h2 = w2[:, 1:].t().contiguous(), w3[:, 1:].t()
        span = BLOCK * self.num_envs
        advantages, pushes = self.returns.view(NUM_BLOCKS, 1, -1), self.push.view(NUM_BLOCKS, 1, -1)
        for i in range(num_blocks):
            inputs = self.record[i].view(7, -1)[:5, :span]
            for at in range(0, span, COLUMNS):
                x = inputs[:, at : at + COLUMNS]
                columns = slice(at, at + x.shape[1])
                h1, h2, d1, d2 = (buffer[:, : x.shape[1]] for buffer in self.wide)
                torch.relu_(torch.mm(w1, x, out=h1[1:]))
                torch.relu_(torch.mm(w2, h1, out=h2[1:]))
                delta = torch.mm(w3, h2).sigmoid_().sub_((pushes[i, :, columns] > 0).to(self.dtype))
                delta.mul_(advantages[i, :, columns])
                grads[2].addmm_(delta, h2.t())
                relu_backward(torch.mul(into_h2, delta, out=d2), h2[1:], 0, grad_input=d2)
                grads[1].addmm_(d2, h1.t())
                relu_backward(torch.mm(into_h1, d2, out=d1), h1[1:], 0, grad_input=d1)
                grads[0].addmm_(d1, x.t())


def _compiled_step() -> Callable[..., tuple[Tensor, Tensor]]:
    """`torch.compile` of a step, the network written out: one C++ loop over the environments.

    The guards, which would look at every argument again at every step, are skipped: one twin's
    shapes never change. Compiled code hangs on the code object, so each twin gets its own.
    """

    def layer(weights: Tensor, inputs: Any) -> list[Tensor]:
        return [sum((w[i + 1] * x for i, x in enumerate(inputs)), w[0]) for w in weights.unbind()]

    def step(obs, noise, w1, w2, w3):
        _, theta, x_dot, theta_dot = obs[1:].unbind()
        hidden = [torch.relu(h) for h in layer(w1, obs[1:].unbind())]
        hidden = [torch.relu(h) for h in layer(w2, hidden)]
        acts = layer(w3, hidden)[0] + noise[0] > 0
        push = torch.where(acts, cp.FORCE, -cp.FORCE).to(obs) / cp.TOTAL_MASS
        sin, cos = torch.sin(theta), torch.cos(theta)
        total = push + cp.POLE_MASS_LENGTH / cp.TOTAL_MASS * theta_dot * theta_dot * sin
        inertia = 4 / 3 - cp.POLE_MASS / cp.TOTAL_MASS * cos * cos
        theta_acc = (cp.GRAVITY * sin - total * cos) / (cp.HALF_POLE_LENGTH * inertia)
        x_acc = total - cp.POLE_MASS_LENGTH / cp.TOTAL_MASS * theta_acc * cos
        rates = (x_dot, theta_dot, x_acc, theta_acc)
        # Returned, not written in place: the rows of `record` share their memory.
        return obs[1:] + cp.TIME_STEP * torch.stack(rates), push

    step.__code__ = step.__code__.replace()
    options: Any = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    return torch.compile(step, fullgraph=True, dynamic=False, options=options)


def make_train_step(
    agent: str,
    num_envs: int,
    *,
    compiled: bool = False,
    learning_rate: float = 1e-2,
    discount: float = 0.99,
) -> Callable[[nn.Module], int]:
    """`step(module)` trains the softmax agent in place and returns the unmasked steps it saw.

    Noise comes from torch's global generator. One thread is what it is tuned for: to try the
    second core, the caller sets `torch.set_num_threads(2)`.
    """
    if agent != "reinforce":
        raise ValueError(f"agent is {agent!r}, accepted is 'reinforce'")
    twin = Twin(num_envs, discount, compiled, torch.float32)
    optimizers: dict[int, torch.optim.Optimizer] = {}

    @torch.no_grad()
    def step(module: nn.Module) -> int:
        if id(module) not in optimizers:
            parameters = module.parameters()
            optimizers[id(module)] = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
        twin.load(module)
        twin.record[0, 1:5, 0].uniform_(-CARTPOLE_RESET_BOUND, CARTPOLE_RESET_BOUND)
        num_blocks = twin.rollout(lambda i: twin.draw_noise())
        num_steps = twin.advantages(num_blocks)
        twin.backward(num_blocks)
        twin.store_grads(module)
        optimizers[id(module)].step()
        return num_steps

    return step


def main() -> None:
    """Prints env-steps a second of a solved policy, which a learning rate of 0 keeps solved."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--num-envs", type=int, nargs="*", default=[64, 256, 1024, 4096, 16384])
    args = parser.parse_args()
    module = pgtorch.train(pgtorch.TrainConfig(agent="reinforce", seed=1)).params
    torch.set_num_threads(1)
    print(" envs   first call s   mean steps   env-steps/s: wall, CPU")
    for num_envs in args.num_envs:
        step = make_train_step("reinforce", num_envs, compiled=args.compiled, learning_rate=0.0)
        started = time.perf_counter()
        step(module)
        first = time.perf_counter() - started
        rates, count = [], 0
        for _ in range(5):
            wall, cpu = time.perf_counter(), time.thread_time()
            count = step(module)
            rates.append((count / (time.perf_counter() - wall), count / (time.thread_time() - cpu)))
        wall, cpu = (sorted(each)[2] / 1e6 for each in zip(*rates, strict=True))
        print(f"{num_envs:5} {first:14.1f} {count / num_envs:12.1f} {wall:10.2f} M {cpu:5.2f} M")


if __name__ == "__main__":
    main()
