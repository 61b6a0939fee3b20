"""All variants, wrong ones and equivalent ones."""

from parity.mutants import (
    of_adapters,
    of_environment,
    of_laws,
    of_networks,
    of_noise,
    of_optimizers,
    of_returns,
    of_training,
)
from parity.mutants.equivalents import equivalents

VARIANTS = (
    *of_environment.of_environment(),
    *of_adapters.of_adapters(),
    *of_environment.of_weights(),
    *of_networks.of_initialisation(),
    *of_networks.of_networks(),
    *of_networks.of_depths(),
    *of_laws.of_normal(),
    *of_laws.of_categorical(),
    *of_laws.of_policies(),
    *of_returns.of_returns(),
    *of_returns.of_advantages(),
    *of_returns.of_loss(),
    *of_optimizers.of_clipping(),
    *of_optimizers.of_adam(),
    *of_optimizers.of_schedules(),
    *of_training.of_updates(),
    *of_training.of_rollouts(),
    *of_noise.of_noise(),
    *equivalents(),
)
"""In the order of the pipeline."""
