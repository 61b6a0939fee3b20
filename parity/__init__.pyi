from . import oracle as oracle
from . import sides as sides
from . import strategies as strategies
from . import tolerance as tolerance
from .tape import NoiseTape as NoiseTape
from .tolerance import Mismatch as Mismatch
