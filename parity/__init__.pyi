from . import oracle as oracle
from . import sides as sides
from . import strategies as strategies
from . import tolerance as tolerance
from .preflight import Preflight as Preflight
from .preflight import preflight as preflight
from .tape import NoiseTape as NoiseTape
from .tolerance import Mismatch as Mismatch
