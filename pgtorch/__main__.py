"""`python -m pgtorch`."""

import sys

from pgtorch.cli import main

sys.exit(main())
