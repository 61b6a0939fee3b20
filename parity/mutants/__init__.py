"""Known wrong variants of our two implementations, and what the suite sees of them.

`VARIANTS` lists them; `selftest` puts each in its place from outside, runs the suite on it and says
at which stage it is caught. The equivalent variants are other formulas of the same thing: they must
pass, and each says why no input can tell it apart.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
