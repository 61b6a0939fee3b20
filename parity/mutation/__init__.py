"""The power of a user's own tests: systematic wrong variants of a user's own functions.

`mutate` makes them of one function, to be called in this process; `parity power -- pytest …` runs
a test command on each, in a process of its own. (`parity.mutants` are the known wrong variants of
this project's own code, for `parity selftest`.)
"""

from parity.mutation.kinds import KINDS as KINDS
from parity.mutation.mutate import Mutant as Mutant
from parity.mutation.mutate import mutate as mutate
