"""What proves two implementations of an algorithm the same.

`check` holds any PyTorch callable and any JAX callable against each other and gives a `Report`;
`check_pipeline` a whole algorithm, stage by stage; `lockstep` whole runs, update after update.
`oracle` is a third, slow definition of every quantity in float64 NumPy; `tolerance` the rule by
which two numbers are the same; `sides` runs PyTorch and JAX callables on the same NumPy inputs.
`convert` carries weights and optimizer state between the two. `NoiseTape` is the noise that both
sides read, `strategies` draws inputs on which wrong code shows, and `preflight` says what
would spoil a comparison here. In pytest all of it is the fixture `parity`, of `parity.plugin`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
