"""The framework-free base that `pgjax` and `pgtorch` share: configuration, the host loop's
bookkeeping, run folders and their file schema, Gymnasium, evaluation, the command line.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
