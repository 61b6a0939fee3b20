"""Many seeds of one configuration, one after another."""

from collections.abc import Sequence

from torch import nn

from pgcore.config import TrainConfig
from pgcore.envs.gym import gym_spec
from pgcore.training.bookkeeping import Result
from pgcore.training.seeds import SeedsCallback, starting_points, train_in_turn
from pgcore.training.seeds import SeedsError as SeedsError
from pgtorch.checkpoint import _require_fit
from pgtorch.train import train


def train_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    *,
    params: Sequence[nn.Module] | None = None,
    callback: SeedsCallback | None = None,
) -> list[Result]:
    """Trains an agent from each of many seeds, as `train` does from one.

    Args:
        config: The runs' settings; its seed is not used. With `run_dir` set it leaves one folder:
            a table, `seeds.csv`, and a run folder for each seed.
        seeds: Each from 0 to 2^32 - 1, and each once.
        params: A module for each seed to start from; by default the policy makes them.
        callback: Called with `(seed, update)` after each update of each seed.

    Returns:
        One result a seed, in the order of `seeds`.

    Raises:
        UsageError: A seed is none or given twice, Gymnasium cannot make the environment, or
            `params` do not fit it.
        SeedsError: Something was not finite in a seed's run; the others went on to their ends.
    """
    starts = starting_points(config, seeds, params)
    seeds = list(starts)
    if params is not None:
        spec = gym_spec(config.env_id)
        for module in params:
            _require_fit(module, config, spec)
    return train_in_turn(
        lambda one, **options: train(one, params=starts[one.seed], **options),
        config,
        seeds,
        "pgtorch",
        callback=callback,
    )
