from .driver import lockstep as lockstep
from .ranks import RankTest as RankTest
from .ranks import rank_test as rank_test
from .reports import Distances as Distances
from .reports import LockstepReport as LockstepReport
