"""Whole training runs of two implementations, side by side: `parity.lockstep` and what it gives.

`states` knows a state as named arrays, `steps` one step of either side, `resync` and `free` the two
ways of running, `reports` what comes of it, `ranks` the judgement on many runs. `agents` makes runs
of the project's own two agents, `pictures` draws them, `command` is `parity lockstep`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
