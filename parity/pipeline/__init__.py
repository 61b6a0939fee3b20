"""`check_pipeline`: a whole algorithm as stages, and the first stage at which two ports part.

`feed` holds what each stage is given, `through` composes the stages from `params` to `loss`,
`draws` tests initialisation, `optimizers` makes the stage `update`, `chained` runs whole steps.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
