"""The article's agents in PyTorch: readable, runnable, the reference.

Nothing here draws a random number but `draw_noise`, `draw_reset`, `init` and `train`: noise is a
tensor that is passed in. `params` is the `nn.Module`, `opt_state` a `torch.optim` optimizer and
`key` a `torch.Generator`; `update_step` steps the first two in place, and nothing else mutates
what it is given.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
