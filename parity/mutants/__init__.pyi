from .catalogue import VARIANTS as VARIANTS
from .power import Outcome as Outcome
from .power import selftest as selftest
from .variants import Patch as Patch
from .variants import Variant as Variant
