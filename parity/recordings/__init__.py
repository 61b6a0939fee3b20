"""A proof that travels: stages recorded on one machine, held against another's by the same rule.

`record` writes what a side computed as one file, with what it computed it from, the source lines,
the versions and the settings, and, of a function, what rounding is worth to it. `compare` holds one
recording against another, or against functions of this machine. Neither framework is needed for
the former: a recording is data, and so is its yardstick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
