from . import oracle as oracle
from . import sides as sides
from . import tolerance as tolerance
from .checks import check as check
from .report import Report as Report
from .tolerance import Mismatch as Mismatch
