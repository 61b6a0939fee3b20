from . import convert as convert
from . import oracle as oracle
from . import sides as sides
from . import tolerance as tolerance
from .tolerance import Mismatch as Mismatch
