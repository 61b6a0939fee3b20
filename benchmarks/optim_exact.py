"""How exact are Adam and clipping in float32, ours and torch's? A search over hostile inputs.

    python -m benchmarks.optim_exact --save

Both sides get the same float32 arrays; what they should have found is computed in long double.
Errors are relative, entry by entry, in units roundoff u = 2⁻²⁴ of float32. No sums cancel: m and g
have the same sign. Three questions:

- `step`: one update, over betas, eps, counts up to a million, and magnitudes of the gradient;
- `drift`: m and v after many updates by the same gradient, where a rounding that is made again at
  each update adds up;
- `norm`: the global norm that clipping divides by, over sizes and magnitudes.

`--save` keeps the figures under `benchmarks/results/`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import tyro

import pgjax
import pgtorch
from benchmarks import results

UNIT = 2.0**-24
BETAS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 1 - 1e-7)
EPSILONS = (1e-3, 1e-8, 1e-12)
COUNTS = (0, 1, 2, 5, 9, 30, 99, 1_000, 9_999, 99_999, 999_999)
MAGNITUDES = (1e-12, 1e-8, 1e-4, 1e-2, 1.0, 1e2, 1e6, 1e12)
"""Of the gradient. Squares stay within float32's normal numbers, which XLA on a CPU keeps."""
NUM_ENTRIES = 64
DRIFT_STEPS = 5_000
SIZES = (10, 1_000, 100_000, 1_000_000)
PARTS = ("m", "v", "update")

Case = tuple[Any, Any, Any, int, float]
"""g, m, v, the number of updates before, and the learning rate."""


@dataclass(frozen=True)
class OptimExact:
    """Search for inputs on which Adam or clipping in float32 is further off than torch's."""

    save: bool = False
    """Keep the figures."""


def cases() -> list[Case]:
    """One for each count and magnitude; entries spread over two orders of magnitude."""
    rng = np.random.default_rng(0)
    found = []
    for count, magnitude in itertools.product(COUNTS, MAGNITUDES):
        g, m, root_v = magnitude * 10 ** rng.uniform(-1, 1, (3, NUM_ENTRIES))
        rate = 2.0 ** float(rng.integers(-12, 1))  # float32 holds it: ours takes it as an array
        moments = (m, root_v**2) if count else (np.zeros(NUM_ENTRIES), np.zeros(NUM_ENTRIES))
        found.append((*(a.astype(np.float32) for a in (g, *moments)), count, rate))
    return found


def exact(case: Case, b1: float, b2: float, eps: float) -> list[Any]:
    """m, v and the change of the parameters in long double."""
    wide: Any = np.longdouble
    g, m, v, count, rate = (np.asarray(part, wide) for part in case)
    beta1, beta2 = wide(b1), wide(b2)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    c1, c2 = (-np.expm1((count + 1) * np.log(b)) if b else wide(1) for b in (beta1, beta2))
    return [m, v, -rate * (m / c1) / (np.sqrt(v / c2) + wide(eps))]


def in_torch(case: Case, b1: float, b2: float, eps: float) -> list[Any]:
    g, m, v, count, rate = case
    parameter = torch.nn.Parameter(torch.zeros(len(g)))
    parameter.grad = torch.tensor(g)
    adam = pgtorch.adam(rate, b1, b2, eps)([parameter])
    state = {"step": torch.tensor(float(count)), "exp_avg": torch.tensor(m)}
    adam.state[parameter] = {**state, "exp_avg_sq": torch.tensor(v)}
    adam.step()
    state = adam.state[parameter]
    return [t.detach().numpy() for t in (state["exp_avg"], state["exp_avg_sq"], parameter)]


def in_jax(batch: list[Case], b1: float, b2: float, eps: float) -> list[np.ndarray]:
    """All cases in one call, jitted, with the case as the leading axis."""

    def step(g: Any, m: Any, v: Any, count: Any, rate: Any) -> tuple[Any, Any, Any]:
        adam = pgjax.adam(rate, b1, b2, eps)
        after: Any
        change, after = adam.update(g, optax.ScaleByAdamState(count, m, v))
        return after.mu, after.nu, change

    g, m, v, count, rate = (np.stack(part) for part in zip(*batch, strict=True))
    arrays = (g, m, v, count.astype(np.int32), rate.astype(np.float32))
    return [np.asarray(part) for part in jax.jit(jax.vmap(step))(*arrays)]


def error(found: Any, expected: Any) -> float:
    """The largest relative error in units roundoff."""
    return float((np.abs(found - expected) / np.abs(expected)).max() / UNIT)


def search_step(
    betas: Sequence[float] = BETAS, epsilons: Sequence[float] = EPSILONS
) -> dict[str, Any]:
    """The worst of each side, and where ours exceeds torch's by most."""
    batch = cases()
    worst: dict[str, Any] = {
        part: {"jax": 0.0, "torch": 0.0, "excess": 0.0, "at": None} for part in PARTS
    }
    for b1, b2, eps in itertools.product(betas, betas, epsilons):
        ours = in_jax(batch, b1, b2, eps)
        for i, case in enumerate(batch):
            expected, theirs = exact(case, b1, b2, eps), in_torch(case, b1, b2, eps)
            for part, mine, other, right in zip(PARTS, ours, theirs, expected, strict=True):
                of_jax, of_torch = error(mine[i], right), error(other, right)
                record = worst[part]
                record["jax"] = max(record["jax"], of_jax)
                record["torch"] = max(record["torch"], of_torch)
                if of_jax - of_torch > record["excess"]:
                    at = {"b1": b1, "b2": b2, "eps": eps, "count": case[3], "rate": case[4]}
                    record |= {"excess": of_jax - of_torch, "at": at}
    return worst


def search_drift(
    betas: Sequence[float] = BETAS, num_steps: int = DRIFT_STEPS
) -> list[dict[str, Any]]:
    """m and v after many updates by one gradient, from zero."""
    g = np.random.default_rng(1).uniform(0.5, 2.0, NUM_ENTRIES).astype(np.float32)
    rows = []
    for beta in betas:
        adam = pgjax.adam(1e-3, b1=beta, b2=beta)

        def steps(state: Any, gradient: Any, adam: Any = adam) -> Any:
            return jax.lax.fori_loop(0, num_steps, lambda _, s: adam.update(gradient, s)[1], state)

        ours = jax.jit(steps)(adam.init(jnp.zeros(NUM_ENTRIES)), g)
        parameter = torch.nn.Parameter(torch.zeros(NUM_ENTRIES))
        stepper = pgtorch.adam(1e-3, b1=beta, b2=beta)([parameter])
        parameter.grad = torch.tensor(g)
        for _ in range(num_steps):
            stepper.step()
        state = stepper.state[parameter]
        wide: Any = np.longdouble
        share = 1 - wide(beta) ** num_steps
        row: dict[str, Any] = {"beta": beta}
        for part, mine, other, right in (
            ("m", ours.mu, state["exp_avg"], share * wide(g)),
            ("v", ours.nu, state["exp_avg_sq"], share * wide(g) ** 2),
        ):
            of_jax, of_torch = error(np.asarray(mine), right), error(other.numpy(), right)
            row[part] = {"jax": of_jax, "torch": of_torch}
        rows.append(row)
    return rows


def search_norm() -> list[dict[str, Any]]:
    """The global norm that clipping divides by."""
    rows = []
    for size, magnitude in itertools.product(SIZES, (1e-15, 1e-6, 1.0, 1e6, 1e15)):
        g = magnitude * np.random.default_rng(size).normal(size=size)
        g = g.astype(np.float32)
        norm = np.sqrt((g.astype(np.longdouble) ** 2).sum())
        found = jax.jit(optax.tree.norm)(g)
        parameter = torch.nn.Parameter(torch.zeros(size))
        parameter.grad = torch.tensor(g)
        theirs = pgtorch.clip_by_global_norm(1.0)([parameter])
        off = {"jax": error(np.asarray(found), norm), "torch": error(theirs.numpy(), norm)}
        rows.append({"size": size, "magnitude": magnitude} | off)
    return rows


def main() -> None:
    options = tyro.cli(OptimExact, description=__doc__)
    found = {"step": search_step(), "drift": search_drift(), "norm": search_norm()}
    for part, record in found["step"].items():
        print(f"step {part}: jax {record['jax']:.2f} u, torch {record['torch']:.2f} u, ", end="")
        print(f"ours further off by at most {record['excess']:.2f} u, at {record['at']}")
    for row in found["drift"]:
        sides = ", ".join(f"{k} jax {row[k]['jax']:.1f} torch {row[k]['torch']:.1f}" for k in "mv")
        print(f"drift of {DRIFT_STEPS} updates, beta {row['beta']}: {sides}")
    for row in found["norm"]:
        of = f"norm of {row['size']} at {row['magnitude']:g}"
        print(f"{of}: jax {row['jax']:.1f} torch {row['torch']:.1f}")
    if options.save:
        results.save("optim_exact", "python -m benchmarks.optim_exact --save", found)


if __name__ == "__main__":
    main()
