"""Weights and optimizer state from PyTorch to Flax and back: by name, total, to the last bit.

Where each tensor goes is a stated map, never a guess: `names` says which Flax module a torch
module becomes, the registry how a layer's leaves are called and laid out on both sides. Whatever
is left over on either side is an error, and so is a shape that would fit if it were transposed.
`certify` runs both networks and says whether the map is right.

    params = to_flax(module, template, names={"linear1": "Dense_0", "mu_linear": "mu"})
    state_dict = to_torch(params, module, names={"linear1": "Dense_0", "mu_linear": "mu"})

Flax parameters may be Linen's (`{"params": …}` or the tree inside) or an NNX state.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
