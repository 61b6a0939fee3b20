"""Where PyTorch and JAX differ: a catalogue that measures itself, and what explains a difference.

Each entry computes what both sides give, and what they give once its remedy is followed; nothing in
it is a number that was written down. `run` measures entries on the installed versions, `show`
explains one, `catalogue` has them all by number, `moved` says what is no longer as in the committed
table. `match` names the known traps that explain two arrays which part.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
